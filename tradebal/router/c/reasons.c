/* The texts of the reasons, which the Python router shares. */
#include "reasons.h"

const char *const reason_texts[REASONS] = {
    [REASON_NONE] = "",
    [REASON_UNTERMINATED] = "unterminated value",
    [REASON_MISMATCHED] = "mismatched bracket",
    [REASON_TOO_DEEP] = "nested too deeply",
    [REASON_NO_VALUE] = "expected a value",
    [REASON_NO_COMMA] = "expected a comma or the end of the array",
    [REASON_TEXT_AFTER] = "text after the end",
    [REASON_MALFORMED] = "malformed object",
    [REASON_NO_SYMBOL] = "no usable symbol",
    [REASON_RAW_NEWLINE] = "raw newline in a string",
    [REASON_TOO_LONG] = "trade too long",
    [REASON_RESERVED_BITS] = "reserved bits set",
    [REASON_UNKNOWN_OPCODE] = "unknown opcode",
    [REASON_MASKED] = "masked frame",
    [REASON_CONTROL_FRAGMENTED] = "fragmented control frame",
    [REASON_CONTROL_TOO_LONG] = "control frame too long",
    [REASON_NO_START] = "continuation without a start",
    [REASON_INTERLEAVED] = "data frame inside a fragmented message",
    [REASON_LENGTH_RANGE] = "length out of range",
    [REASON_MESSAGE_TOO_LONG] = "message too long",
    [REASON_CLOSE_PAYLOAD] = "malformed close payload",
    [REASON_CLOSE_CODE] = "invalid close code",
    [REASON_UTF8] = "invalid UTF-8",
};
