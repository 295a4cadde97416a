// Reads events over ClickHouse's native protocol: one line "action<TAB>id" for each, in order of time.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"
)

func main() {
	connection, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{os.Getenv("CLICKHOUSE_TCP")},
		Auth: clickhouse.Auth{
			Database: os.Getenv("CLICKHOUSE_DATABASE"),
			Username: os.Getenv("CLICKHOUSE_USER"),
			Password: os.Getenv("CLICKHOUSE_PASSWORD"),
		},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
	})
	if err != nil {
		log.Fatal(err)
	}
	rows, err := connection.Query(context.Background(), "SELECT action, id FROM events ORDER BY occurred_at")
	if err != nil {
		log.Fatal(err)
	}
	for rows.Next() {
		var action string
		var id uuid.UUID
		if err := rows.Scan(&action, &id); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\t%s\n", action, id)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
}
