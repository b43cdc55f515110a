/* A provider at a given rate: sends frames of trades at their times, each trade stamped when its frame was sent.
 *
 *     pace FD PER_FRAME RATE SECONDS [RATE SECONDS …]
 *
 * Starts after a line on stdin. A trade's last member is "i", its frame's CLOCK_MONOTONIC in nanoseconds, 19 digits.
 * A receiver that is too slow makes it late; then it sends without pause until it is on time again. Says
 * "sent TRADES SCHEDULED_END_NS END_NS", and keeps the socket open until stdin ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum { STAMP = 19, MAX_PER_FRAME = 500, TRADE_MAX = 128 };

static void fail(const char *what)
{
    fprintf(stderr, "pace: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t at)
{
    struct timespec then = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL) == EINTR)
        ;
}

static uint64_t number; /* of the last trade */

/* Trades over all shards: symbols of four letters, in no order. */
static size_t put_trade(char *to, uint64_t stamp)
{
    uint64_t hash = ++number * 0x9E3779B97F4A7C15u;
    char symbol[5];
    for (int i = 0; i < 4; i++)
        symbol[i] = (char)('A' + (hash >> (32 + 5 * i)) % (i < 2 ? 26 : 9));
    symbol[4] = 0;
    return (size_t)sprintf(to,
                           "{\"ev\":\"T\",\"sym\":\"%s\",\"x\":4,\"p\":114.125,\"s\":100,\"t\":1606487400000,"
                           "\"q\":%llu,\"i\":\"%0*llu\"}",
                           symbol, (unsigned long long)number, STAMP, (unsigned long long)stamp);
}

static size_t put_frame(char *frame, int count, uint64_t stamp)
{
    char *payload = frame + 4, *to = payload;
    for (int i = 0; i < count; i++) {
        *to++ = i ? ',' : '[';
        to += put_trade(to, stamp);
    }
    *to++ = ']';
    size_t size = (size_t)(to - payload);
    frame[0] = (char)0x81; /* text, whole; its length in 16 bits also where 7 would do */
    frame[1] = 126;
    frame[2] = (char)(size >> 8);
    frame[3] = (char)size;
    return size + 4;
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            fail("send");
        data += sent;
        size -= (size_t)sent;
    }
}

int main(int argc, char **argv)
{
    static char frame[MAX_PER_FRAME * TRADE_MAX + 16];
    if (argc < 5 || argc % 2 == 0) {
        fprintf(stderr, "usage: pace FD PER_FRAME RATE SECONDS [RATE SECONDS ...]\n");
        return 2;
    }
    const int fd = atoi(argv[1]), per_frame = atoi(argv[2]);
    if (per_frame < 1 || per_frame > MAX_PER_FRAME)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1); /* else the kernel may wake us 50 us late */
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 0;
    uint64_t due = nanoseconds();
    for (int phase = 3; phase < argc; phase += 2) {
        const double gap = 1e9 * per_frame / atof(argv[phase]);
        const uint64_t frames = (uint64_t)(atof(argv[phase + 1]) * 1e9 / gap), began = due;
        for (uint64_t i = 0; i < frames; i++) {
            due = began + (uint64_t)((double)i * gap);
            uint64_t now = nanoseconds();
            if (now < due) {
                sleep_until(due);
                now = nanoseconds();
            }
            send_all(fd, frame, put_frame(frame, per_frame, now));
        }
        due = began + (uint64_t)((double)frames * gap);
    }
    printf("sent %llu %llu %llu\n", (unsigned long long)number, (unsigned long long)due,
           (unsigned long long)nanoseconds());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}
