"""Sources of images, and preparing and reading datasets; free of torch."""
