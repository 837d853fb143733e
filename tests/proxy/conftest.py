"""The S3 servers and the replicas that tests of the proxy share."""

from tests.proxy.cluster import bucket_trio, trio, upstream
from tests.s3_servers import s3_credentials, seaweedfs_server, seaweedfs_servers

__all__ = ["bucket_trio", "s3_credentials", "seaweedfs_server", "seaweedfs_servers", "trio", "upstream"]
