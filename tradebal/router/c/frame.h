/* The header of a websocket frame (RFC 6455, section 5.2). */
#ifndef TRADEBAL_FRAME_H
#define TRADEBAL_FRAME_H

#include "words.h"

enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

enum { CLOSE_PROTOCOL_ERROR = 1002, CLOSE_NONE = 1005, CLOSE_INVALID_DATA = 1007, CLOSE_TOO_BIG = 1009 };

typedef struct {
    uint64_t length; /* of the payload */
    unsigned size;   /* of the header */
    u8 opcode;
    bool final;
} frame_header;

/* Read a header from the first bytes of `data`. `fragmented`: a fragmented message has begun and not ended.
 * Returns 0 when header is filled, 1 when more bytes are needed, or the negative of a REASON_… of a violation. */
int frame_parse(const u8 *data, size_t size, bool fragmented, frame_header *header);

bool frame_close_code_valid(unsigned code);

#endif
