/* Reads websocket frame headers, and refuses what RFC 6455 doesn't let a server send. */
#include "frame.h"

#include "reasons.h"

int frame_parse(const u8 *data, size_t size, bool fragmented, frame_header *header)
{
    if (size < 2)
        return 1;
    const u8 first = data[0], second = data[1];
    const u8 opcode = first & 0x0F, short_length = second & 0x7F;
    if (first & 0x70)
        return -REASON_RESERVED_BITS; /* 5.2: no extension was negotiated */
    if ((opcode > OP_BINARY && opcode < OP_CLOSE) || opcode > OP_PONG)
        return -REASON_UNKNOWN_OPCODE;
    if (second & 0x80)
        return -REASON_MASKED; /* 5.1 */
    const bool final = first & 0x80;
    if (opcode >= OP_CLOSE) { /* 5.5 */
        if (!final)
            return -REASON_CONTROL_FRAGMENTED;
        if (short_length > 125)
            return -REASON_CONTROL_TOO_LONG;
    } else if (opcode == OP_CONTINUATION) { /* 5.4 */
        if (!fragmented)
            return -REASON_NO_START;
    } else if (fragmented) {
        return -REASON_INTERLEAVED;
    }
    header->opcode = opcode;
    header->final = final;
    header->length = short_length;
    header->size = 2;
    if (short_length < 126)
        return 0;
    header->size = short_length == 126 ? 4 : 10;
    if (size < header->size)
        return 1;
    header->length = 0;
    for (unsigned i = 2; i < header->size; i++)
        header->length = header->length << 8 | data[i];
    if (header->length >> 63)
        return -REASON_LENGTH_RANGE;
    return 0;
}

bool frame_close_code_valid(unsigned code)
{
    /* 7.4 and IANA's registry; 1004 to 1006 and 1015 may not stand in a frame. */
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}
