"""The S3 servers that tests of the proxy share."""

from tests.s3_servers import s3_credentials, seaweedfs_server, seaweedfs_servers

__all__ = ["s3_credentials", "seaweedfs_server", "seaweedfs_servers"]
