"""What both sides share: OCI values, the registry client, blob stores and the build-layer cache."""
