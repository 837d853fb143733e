"""The S3 servers and the replicas that tests of the proxy share."""

from tests.proxy.cluster import bucket_trio, trio, trio_registry
from tests.s3_servers import s3_credentials, seaweedfs_server, seaweedfs_servers

__all__ = ["bucket_trio", "s3_credentials", "seaweedfs_server", "seaweedfs_servers", "trio", "trio_registry"]
