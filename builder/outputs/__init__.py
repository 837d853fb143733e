"""What a build leaves behind: images in registries and files, and plain files."""
