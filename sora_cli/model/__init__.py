"""Network definitions: tensors in, tensors out; no file access, no devices chosen."""
