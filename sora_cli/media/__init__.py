"""Videos and pictures in and out: the only place that knows files of pixels."""
