"""espmon: serial log monitor and crash decoder for ESP8266 and ESP32 boards."""

__version__ = "0.1.0"
