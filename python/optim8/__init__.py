"""8-bit optimizer states for PyTorch, computed by Rust."""
