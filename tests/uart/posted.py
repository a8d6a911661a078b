"""Bytes that people posted because they could not read them, as their posts give them."""

# esp8266.com, "Strange situation with starting ESP-WROOM-02" (viewtopic.php?t=20587): hex as posted. The author says that
# he listened at 14400; the bytes say 115200. The banner says what was wrong: GPIO15 was high, the ROM waited for an SDIO host.
WROOM_02 = bytes.fromhex(
    "726C006C9C9E7C008C6CE07C020C0C0C8C0C6CEC0C627C8E8202EC129272926 28C0C628CF26E6E9E6C6E6E9CE2EC0C627270EC8E6C726C726C"
    "9E12126E9EEC7CF2028C9C6E7C000C6E6E7C90926002".replace(" ", "")
)
