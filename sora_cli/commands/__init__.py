"""One thin file per command: options -> Request -> engine -> console."""
