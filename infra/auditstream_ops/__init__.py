"""Running auditstream: the command line, deploy steps, the local stack."""
