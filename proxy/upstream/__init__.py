"""What upstreams have, how they are asked, and when the cache answers for them."""
