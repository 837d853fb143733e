"""What people see of the proxy: log, metrics, audit, status."""
