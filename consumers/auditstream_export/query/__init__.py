"""Which events an export reads, and the SQL that reads them."""
