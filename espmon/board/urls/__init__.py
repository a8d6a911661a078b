"""The package that pyserial searches for `sim://` (add its name to `serial.protocol_handler_packages`)."""
