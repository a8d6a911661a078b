"""Failure texts of flashing tools and terminal programs: esptool, espcomm, pyserial, espflash, Thonny, ampy, and what the
IDEs add to them in the user's language."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espmon.decode import causes
from espmon.decode.formats.shape import Format
from espmon.decode.scan import Spec, Token
from espmon.events import HostError

if TYPE_CHECKING:
    from espmon.decode.interpreter import Interpreter

_PORT = r"(?:\\\\\.\\)?(?:COM\d{1,3}|/dev/(?:tty|cu)[\w.\-]{1,60})"
# "Not found", "busy", "denied", "can't" in the languages that IDEs and operating systems speak.
_FAILS = re.compile(
    r"not (?:found|available|exist|open|recogni|be opened|respond)|n't (?:exist|open|find|access)|\bdenied|\bbusy|\bin use|(?:could|can)(?: ?not|n't)\b|unable to|failed to|error opening|no such file"
    r"|no (?:se (?:pudo|puede|encuentra|encontr)|encontrad|est[áa] disponible|existe|disponible)|denegado|ocupado|en uso"
    r"|nicht (?:gefunden|verf[üu]gbar|ge[öo]ffnet|vorhanden)|kann\b.{0,60}\bnicht|konnte\b.{0,60}\bnicht|verweigert|belegt|fehler beim [öo]ffnen"
    r"|introuvable|pas (?:trouv|disponible|[ée]t[ée] trouv)|impossible d|refus[ée]|occup[ée]|erreur (?:lors de l')?ouverture"
    r"|non (?:trovat|disponibile|esiste)|impossibile|negato|occupat"
    r"|n[ãa]o (?:encontrad|est[áa] dispon|existe|foi poss|p[ôo]de)|negado|ocupada"
    r"|niet (?:gevonden|beschikbaar|geopend)|geweigerd|bezet|nie (?:znaleziono|mo[żz]na|istnieje)|odmowa|zaj[ęe]ty"
    r"|не (?:найден|удалось|доступ|удается|существует)|недоступ|отказано|занят|ошибка (?:открытия|при открытии)|nenalezen|odep[řr]en|bulunamad"
    r"|未找到|找不到|不可用|拒绝访问|无法打开|被占用|不存在|見つかりません|拒否|開けません|사용할 수 없|거부",
    re.IGNORECASE,
)
_BEFORE_PORT = re.compile(
    r"(?:port|puerto|porta|puerta|poort|portu|порта?|串口|端口|ポート|포트|serial|série|board|placa|platine|carte|scheda|плата|开发板)(?:\s(?:serie|série|serial|seriale|at|on|en|an|sur|su|em|op|in|на))?[\s:'\"\u00ab\u201e(]{1,4}$"
    r"|(?:open|opening|access|accessing|connect(?:ion)? to|configure|lock|find|use|using)\s['\"]?$|(?:ouvrir|abrir|aprire|öffnen|openen|otworzyć|открыть)\s.{0,20}$|^\W{0,3}$|(?:error|fatal|warning)\W{1,3}$|(?:denied|busy|directory)\W{1,4}$",
    re.IGNORECASE,
)
TOKENS = (
    Spec("host", r"(?i:a fatal (?:esptool(?:\.py)? )?error occurred): (?P<text>[^\n]{1,300})", ("error occurred",)),
    Spec("host", r"(?:esptool\.)?FatalError: (?P<text>[^\n]{1,300})", ("fatalerror: ",)),
    Spec("host", r"(?<!\w)(?P<text>espcomm_\w{2,20} failed|espcomm_\w{2,20}(?:\(\w{1,40}\) failed|: (?:cant|wrong|didn't|invalid|no) [^\n]{1,100}))", ("espcomm_",)),
    Spec("host", r"(?<![\w])(?P<text>Failed to open (?:COM\d{1,3}|/dev/(?:tty|cu)\S{1,60}))", ("failed to open ",)),
    Spec("host", r"(?P<text>Failed to initialize\. Try resetting your device[^\n]{0,120}|Failed to execute '\w{3,30}' on 'SerialPort'[^\n]{0,120})", ("failed to initialize. try", "' on 'serialport'")),
    Spec("host", r"(?P<text>\*\*\* \[(?:upload|uploadfs|erase|program)\] Error \d{1,3}|(?:Error during Upload: )?Failed uploading: [^\n]{1,120}|Error during Upload: [^\n]{1,160})", ("] error ", "failed uploading: ", "error during upload: ")),
    Spec("host", r"(?i:a serial exception error occurred): (?P<text>[^\n]{1,300})", ("a serial exception error occurred: ",)),
    Spec("host", r"(?P<text>(?:[Cc]ould not|[Cc]annot|[Uu]nable to|[Ff]ailed to|[Ee]rror) open(?:ing)? (?:serial |com )?port(?:[ :][^\n]{1,300}|\.?(?=\s*$)))", (" open",)),
    Spec("host", r"serial(?:util)?\.\s{0,2}(?:Serial)?(?:serialutil\.)?(?P<text>Serial(?:Timeout)?Exception: [^\n]{1,300})", ("exception: ",)),
    Spec("host", r"(?<!\w)(?P<text>SerialTimeoutException: [^\n]{1,300})", ("serialtimeoutexception: ",)),
    Spec("host", r"(?<![\w.])(?P<text>SerialException: [^\n]{1,300})", ("serialexception: ",)),
    Spec("host", r"(?<!\w)Exception: (?P<text>Failed to connect)\W{0,3}$", ("exception: failed to connect",)),
    Spec("host", r"(?P<text>Failed to connect to (?:ESP|Esp)[^\n]{1,200})", ("failed to connect to e",)),
    Spec("host", r"(?P<text>device reports readiness to read but returned no data[^\n]{0,120})", ("device reports readiness to read but returned no data",)),
    Spec("host", r"(?P<text>(?:ClearCommError|GetOverlappedResult|WriteFile|ReadFile) failed \([^\n]{1,200})", (" failed (",)),
    Spec("host", r"(?<![\w(])(?P<text>(?:PermissionError|FileNotFoundError|WindowsError|OSError|BlockingIOError)\(\d{1,5}, [^\n]{1,200})", ("error(",)),
    Spec("host", r"(?P<text>Cannot configure port, something went wrong[^\n]{0,250})", ("cannot configure port, ",)),
    Spec("host", r"(?P<text>Couldn't sync to ESP[^\n]{0,80}|(?:NetworkError: )?The device has been lost)", ("couldn't sync to esp", "the device has been lost")),
    Spec("host", r"(?P<text>Wrong boot mode detected \(0x[0-9a-fA-F]{1,2}\)![^\n]{0,120})", ("wrong boot mode detected (",)),
    Spec("host", r"(?<!\w)Error: (?P<text>Please specify `?upload_port`?[^\n]{0,120}|Could not automatically find serial port[^\n]{0,160})", ("error: please specify", "error: could not automatically")),
    Spec("host", r"(?P<text>PROBLEM IN THONNY'S BACK-END[^\n]{0,200}|thonny\.[\w.]{3,60}: Crash in backend|Lost connection to the device[^\n]{0,120}|(?<!\w)[Cc]onnection lost ?-- ?[^\n]{1,120})", ("thonny's back-end", "crash in backend", "lost connection to the device", "onnection lost")),
    Spec("host", r"(?P<text>mpremote: (?:failed to access|no device found|error)[^\n]{0,160})", ("mpremote: ",)),
    Spec("host", r"(?:\[ERROR\]|^): (?P<text>No response from device|No Answer|Authentication Failed|Host \S{1,60} Not Found|Error Uploading[^\n]{0,60})", (": no ", ": authentication failed", ": host ", ": error uploading")),
    Spec("host", r"(?P<text>(?:ModuleNotFoundError|ImportError): No module named '?(?:serial|esptool)\b'?|pyserial or esptool directories not found[^\n]{0,60})", ("no module named", "pyserial or esptool directories")),
    Spec("host", r"(?P<text>An error occurred while uploading the sketch|Problem uploading to board|Une erreur est survenue lors du transfert du croquis|Beim Hochladen des Sketche?s[^\n]{0,60}|Fehler beim Hochladen[^\n]{0,60}|Ha ocurrido un error mientras se[^\n]{0,60}|Ocorreu um erro (?:ao|enquanto)[^\n]{0,60}|Si è verificato un errore durante il caricamento[^\n]{0,40}|Er is een fout opgetreden[^\n]{0,60}|Wystąpił błąd podczas[^\n]{0,60}|[^\n]{0,30}загрузк[еи] скетча[^\n]{0,40}|上传项目[^\n]{0,20}(?:出错|错误)[^\n]{0,20})", ("sketch", "croquis", "uploading to board", "hochladen", "szkic", "schets", "скетча", "上传项目")),
    Spec("host", r"^\W{0,3}(?P<text>Timed out waiting for packet (?:header|content))\W{0,3}$", ("timed out waiting for packet ",)),
    Spec("host-port", rf"(?<![\w/]){_PORT}", ("com", "/dev/")),
    Spec("host", r"(?P<text>Failed to execute script '?esptool'?)", ("failed to execute script ",)),
    Spec("host", r"(?P<text>PyboardError: [^\n]{1,200}|[Cc]ould not enter (?:raw )?(?:REPL|repl)\b[^\n]{0,100})", ("could not enter ", "pyboarderror: ")),
    Spec("host", r"(?P<text>Unable to connect to (?:COM\d+|/dev/\S+)[^\n]{0,200}|Couldn't find the device automatically[^\n]{0,200}|Device is busy or does not respond[^\n]{0,200})", ("couldn't find the device automatically", "device is busy or does not respond", "unable to connect to ")),
    Spec("host", r"(?P<text>(?:Error while connecting to device|Communication error while flashing device|Error while communicating)[^\n]{0,200})", ("communication error while flashing device", "error while communicating", "error while connecting to device")),
)


def _tool(facts: Interpreter, token: Token, text: str) -> str | None:
    whole = facts.full[:1000]
    if "espcomm" in whole:
        return "espcomm"
    if "esptool" in whole or re.search(r"(?i)fatal error occurred|FatalError|Failed to connect to", whole):
        return "esptool"
    if "Pyboard" in text or "raw repl" in text.lower():
        return "ampy"
    if re.search(r"Couldn't find the device automatically|Unable to connect to (?:COM|/dev)|Device is busy or does not", text):
        return "Thonny"
    if "while" in text and "rror" in text:
        return "espflash"
    if re.search(r"\[(?:upload|uploadfs|erase|program)\]|upload_port|automatically find serial port", text):
        return "PlatformIO"
    if "mpremote" in whole:
        return "mpremote"
    if re.search(r"(?i)thonny|lost connection to the device", text):
        return "Thonny"
    if re.search(r"ploading|transfert du croquis|Hochladen|скетча|上传|Board at|during Upload", text):
        return "Arduino"
    if re.search(r"(?i)serial|could not open port|ClearCommError|GetOverlapped|readiness", whole):
        return "pyserial"
    return None


def host_error(facts: Interpreter, token: Token) -> None:
    """One failure text: the same message is stated once per stretch of text."""
    if re.search(r"\bexcept\s+\(?[\w., ]{0,80}$", token.text[max(0, token.start - 100) : token.start]):
        return
    if token.in_source or re.match(r"\W{0,2}(?:%[sdrx]|\{)|(?:\w{1,30}:\s+)?pass\b", token["text"]):
        return  # the line of the tool's source that prints it
    text = " ".join(token["text"].split()).strip(" \"'`")
    text = re.sub(r"(?:\\r|\\n)+.*", "", text)
    why, remedies = causes.host_error(text)
    facts.once(
        "host " + text[:60], HostError, token, tool=_tool(facts, token, text), message=text, causes=why, remedies=remedies
    )


def port_error(facts: Interpreter, token: Token) -> None:
    """A port's name in a line that says in some language that it can't be opened."""
    before, line = token.text[max(0, token.start - 60) : token.start], token.text[:400]
    if _BEFORE_PORT.search(before) is None or _FAILS.search(line) is None or len(line) > 300:
        return
    token.groups["text"] = line
    host_error(facts, token)


FORMAT = Format(name="host", tokens=TOKENS, facts={"host": host_error, "host-port": port_error})
