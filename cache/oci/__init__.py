"""OCI image and distribution specifications: values and the registry client."""
