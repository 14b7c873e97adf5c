/* The load generator: one epoll loop, one core, every byte checked.
 *
 * Knows sockets on loopback and one process id, whose CPU clock it reads at the first and the last
 * moment of the measuring window, so that set-up and warm-up are never charged to the server. Knows
 * nothing of who serves. Prints one JSON line; see usage() for the modes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull
#define SETUP_TIMEOUT_S 10       /* a connect, or the first answer, may take this long */
#define DRAIN_NS (3 * SECOND_NS) /* the last answers may take this long after the window */
#define SLACK_S 60               /* the whole program may overrun its window by this much */
#define TICK_MS 20               /* how often a silent window is looked at */
#define UDP_LOSS_NS (200 * 1000 * 1000ull) /* a datagram unanswered for so long is lost */
#define MAX_ERRORS 1000          /* give up on a server that only fails */
#define MAX_EVENTS 512
#define STAMP_BYTES 16           /* the start of each message: whose it is and its number */
#define MAX_SIZE (1024 * 1024)
#define BULK_PERIOD 262139       /* prime, so that a slip by a round number of bytes is seen */
#define BULK_IN_FLIGHT (1024 * 1024)
#define SOURCES 200              /* 127.0.1.1 up: more ports than one address has */

enum mode { ECHO, BULK, CHURN, UDP, IDLE };
static const char *const MODE_NAMES[] = {"echo", "bulk", "churn", "udp", "idle"};

static struct {
    enum mode mode;
    uint16_t port;
    uint32_t connections;
    size_t size;
    double seconds;
    double warmup;
    uint64_t messages; /* end the window after so many; 0: by time alone */
    size_t greeting;   /* bytes the server sends before anything is asked */
    const char *reply_prefix;
    bool line;
    pid_t server_pid; /* 0: unknown, no CPU is reported */
} options = {.connections = 1, .size = 64, .seconds = 1, .warmup = 0.2, .reply_prefix = ""};

struct connection {
    int fd; /* -1: dead */
    uint32_t number;
    uint32_t sequence;
    uint64_t sent;     /* bytes of this message, or of the whole stream */
    uint64_t received; /* the same, of the reply */
    uint64_t began_at;
    bool wants_out;
};

static struct connection *connections;
static int epoll_fd;
static struct sockaddr_in server = {.sin_family = AF_INET};
static char *reply;   /* what is expected: the prefix and the message */
static char *message; /* points into reply */
static size_t reply_size;
static char *scratch;
static char *pattern; /* bulk: two periods, so that any offset has one whole period ahead */

/* ---- clocks -------------------------------------------------------------------------------- */

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

/* CPU time of the server, user and system, of all its threads, dead ones too, in ns. */
static uint64_t server_cpu_ns(void) {
    clockid_t clock;
    if (options.server_pid == 0 || clock_getcpuclockid(options.server_pid, &clock) != 0) return 0;
    return read_clock(clock);
}

/* Time for which this process and the server could have run but had no core, in ns: somebody else's
 * doing, so the measure of how quiet the machine was. Main threads only; 0 where it is not told. */
static uint64_t waited_ns(void) {
    const pid_t pids[] = {getpid(), options.server_pid};
    uint64_t total = 0;
    for (int i = 0; i < 2; i++) {
        char path[40];
        unsigned long long ran, waited;
        snprintf(path, sizeof path, "/proc/%d/schedstat", pids[i]);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fscanf(file, "%llu %llu", &ran, &waited) == 2) total += waited;
        fclose(file);
    }
    return total;
}

/* ---- failures ------------------------------------------------------------------------------ */

static uint64_t errors;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
    exit(1);
}

/* Counts a failed connection; tells of the first one only. */
__attribute__((format(printf, 1, 2))) static void count_error(const char *format, ...) {
    if (errors++ > 0) return;
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

/* ---- latency: a log-linear histogram, buckets no wider than 1/64 of their value -------------- */

#define SUB_BITS 6
#define SUB_BUCKETS (1 << SUB_BITS)
static uint64_t histogram[(64 - SUB_BITS + 1) * SUB_BUCKETS];
static uint64_t latency_max;

static void record_latency(uint64_t ns) {
    int shift = ns < SUB_BUCKETS ? 0 : 63 - __builtin_clzll(ns) - SUB_BITS;
    histogram[(uint64_t)shift * SUB_BUCKETS + (ns >> shift)]++;
    if (ns > latency_max) latency_max = ns;
}

/* Returns the middle of the bucket under which *share* of all latencies lie, in us. */
static double percentile_us(double share, uint64_t total) {
    uint64_t seen = 0;
    for (uint64_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (seen == 0 || (double)seen < share * (double)total) continue;
        uint64_t shift = i < 2 * SUB_BUCKETS ? 0 : i / SUB_BUCKETS - 1;
        double low = (double)((i - shift * SUB_BUCKETS) << shift);
        return (low + (double)(1ull << shift) / 2) / 1000;
    }
    return 0;
}

/* ---- the window: warm up, measure, drain ---------------------------------------------------- */

static struct {
    enum { WARMUP, MEASURE, DRAIN } phase;
    uint64_t began, ended, cpu_began, cpu_ended, waited;
    uint64_t messages, bytes, lost;
} window;

static void begin_warmup(void) { window.began = now_ns() + (uint64_t)(options.warmup * 1e9); }

static void tick_window(uint64_t now) {
    if (window.phase == WARMUP && now >= window.began) {
        memset(histogram, 0, sizeof histogram);
        latency_max = window.messages = window.bytes = window.lost = 0;
        window.phase = MEASURE;
        window.waited = waited_ns();
        window.cpu_began = server_cpu_ns();
        window.began = now_ns();
        window.ended = window.began + (uint64_t)(options.seconds * 1e9);
    } else if (window.phase == MEASURE &&
               (now >= window.ended ||
                (options.messages != 0 && window.messages >= options.messages))) {
        window.cpu_ended = server_cpu_ns();
        window.ended = now_ns();
        window.waited = waited_ns() - window.waited;
        window.phase = DRAIN;
    }
}

static void count_message(size_t bytes, uint64_t latency) {
    if (window.phase == DRAIN) return;
    window.messages++;
    window.bytes += bytes;
    record_latency(latency);
}

static void print_result(void) {
    double seconds = (double)(window.ended - window.began) / 1e9;
    printf("{\"mode\": \"%s\", \"connections\": %u, \"size\": %zu, \"messages\": %llu, "
           "\"bytes\": %llu, \"seconds\": %.6f, \"server_cpu_ns\": %llu, \"waited_ns\": %llu, "
           "\"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"lost\": %llu, "
           "\"errors\": %llu}\n",
           MODE_NAMES[options.mode], options.connections, options.size,
           (unsigned long long)window.messages, (unsigned long long)window.bytes, seconds,
           (unsigned long long)(window.cpu_ended - window.cpu_began),
           (unsigned long long)window.waited, percentile_us(0.5, window.messages),
           percentile_us(0.9, window.messages), percentile_us(0.99, window.messages),
           (double)latency_max / 1000,
           (unsigned long long)window.lost, (unsigned long long)errors);
}

/* ---- messages ------------------------------------------------------------------------------ */

static void make_buffers(void) {
    size_t prefix = strlen(options.reply_prefix);
    reply_size = prefix + options.size;
    reply = malloc(reply_size);
    scratch = malloc(MAX_SIZE + 64);
    pattern = malloc(2 * BULK_PERIOD);
    if (reply == NULL || scratch == NULL || pattern == NULL) die("memory");
    memcpy(reply, options.reply_prefix, prefix);
    message = reply + prefix;
    for (size_t i = 0; i < options.size; i++) message[i] = (char)('a' + i * 7 % 26);
    if (options.line) message[options.size - 1] = '\n';
    uint32_t random = 2463534242u;
    for (size_t i = 0; i < BULK_PERIOD; i++) {
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        pattern[i] = pattern[i + BULK_PERIOD] = (char)random;
    }
}

/* Makes the one shared message that of this connection: letters only, never a newline. */
static void stamp(const struct connection *c) {
    uint64_t value = (uint64_t)c->number << 32 | c->sequence;
    for (int i = 0; i < STAMP_BYTES; i++) message[i] = (char)('A' + (value >> 4 * i & 15));
}

/* ---- sockets ------------------------------------------------------------------------------- */

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void want_out(struct connection *c, bool wanted) {
    if (c->wants_out == wanted) return;
    c->wants_out = wanted;
    watch(c, EPOLL_CTL_MOD, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Opens a socket for connection *c*; with *spread* its source address is one of many, so that
 * neither 10,000 connections nor those in TIME_WAIT use up the ports. */
static void open_socket(struct connection *c, int type, bool spread) {
    static uint32_t opened;
    int one = 1;
    c->fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    if ((type & SOCK_STREAM) != 0) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (!spread) return;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(0x7f000101u + opened++ % SOURCES);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) != 0) die("bind");
}

/* Reads exactly *size* bytes into scratch, waiting; dies when they do not come. */
static void read_exactly(int fd, size_t size, const char *what) {
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(fd, scratch + got, size - got, 0);
        if (n == 0) errno = ECONNRESET;
        if (n <= 0) die(what);
        got += (size_t)n;
    }
}

/* Connects, takes the greeting, and has one message echoed: so the server has accepted, and its
 * listen backlog is never what is measured. */
static void open_and_greet(struct connection *c) {
    struct timeval limit = {.tv_sec = SETUP_TIMEOUT_S};
    open_socket(c, SOCK_STREAM, options.mode == IDLE);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) die("connect");
    if (options.greeting > MAX_SIZE) die("greeting");
    read_exactly(c->fd, options.greeting, "greeting");
    stamp(c);
    ssize_t sent = send(c->fd, message, options.size, MSG_NOSIGNAL);
    if (sent != (ssize_t)options.size) die("first message");
    read_exactly(c->fd, reply_size, "first reply");
    errno = 0;
    if (memcmp(scratch, reply, reply_size) != 0) die("first reply");
}

/* ---- echo, churn: one message, then its whole reply, then the next --------------------------- */

static uint32_t outstanding; /* connections that wait for a reply */
static void churn_begin(struct connection *c);

static void drop(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    outstanding--;
    if (options.mode == CHURN && window.phase != DRAIN && errors < MAX_ERRORS) churn_begin(c);
}

/* Returns false when the connection failed, and is gone. */
static bool echo_send(struct connection *c) {
    stamp(c);
    ssize_t n = send(c->fd, message + c->sent, options.size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        count_error("send: %s", strerror(errno));
        drop(c);
        return false;
    }
    if (n > 0) c->sent += (uint64_t)n;
    want_out(c, c->sent < options.size);
    return true;
}

static void echo_begin(struct connection *c, uint64_t now) {
    c->sequence++;
    c->sent = c->received = 0;
    c->began_at = now;
    outstanding++;
    echo_send(c);
}

static void churn_begin(struct connection *c) {
    open_socket(c, SOCK_STREAM | SOCK_NONBLOCK, true);
    c->sequence++;
    c->sent = c->received = 0;
    c->began_at = now_ns();
    c->wants_out = true;
    outstanding++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)
        die("connect");
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void echo_ready(struct connection *c, uint32_t events) {
    if ((events & EPOLLOUT) != 0 && c->wants_out && !echo_send(c)) return;
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) == 0) return;
    ssize_t n = recv(c->fd, scratch, reply_size - c->received, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        count_error("recv: %s", n == 0 ? "closed by the server" : strerror(errno));
        drop(c);
        return;
    }
    stamp(c);
    if (memcmp(scratch, reply + c->received, (size_t)n) != 0) {
        count_error("connection %u, message %u: wrong bytes near %llu of the reply", c->number,
                    c->sequence, (unsigned long long)c->received);
        drop(c);
        return;
    }
    c->received += (uint64_t)n;
    if (c->received < reply_size) return;
    uint64_t now = now_ns();
    count_message(options.size, now - c->began_at);
    if (options.mode == CHURN) {
        drop(c);
        return;
    }
    outstanding--;
    if (window.phase != DRAIN) echo_begin(c, now);
}

/* ---- bulk: stream and read back at once ----------------------------------------------------- */

static void bulk_send(struct connection *c) {
    while (window.phase != DRAIN && c->sent - c->received < BULK_IN_FLIGHT) {
        ssize_t n = send(c->fd, pattern + c->sent % BULK_PERIOD, BULK_PERIOD,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            want_out(c, true);
            return;
        }
        if (n < 0) die("bulk send");
        c->sent += (uint64_t)n;
    }
    want_out(c, false);
}

static void bulk_ready(struct connection *c, uint32_t events) {
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) {
        ssize_t n = recv(c->fd, scratch, BULK_PERIOD, MSG_DONTWAIT);
        if (n == 0) errno = ECONNRESET;
        if (n <= 0 && errno != EAGAIN) die("bulk recv");
        if (n > 0) {
            errno = 0;
            if (memcmp(scratch, pattern + c->received % BULK_PERIOD, (size_t)n) != 0)
                die("bulk bytes");
            c->received += (uint64_t)n;
            if (window.phase != DRAIN) window.bytes += (uint64_t)n;
        }
    }
    bulk_send(c);
    outstanding = 0;
    for (uint32_t i = 0; i < options.connections; i++)
        if (connections[i].sent != connections[i].received) outstanding++;
}

/* ---- udp: one datagram, then its reply or its loss, then the next ----------------------------- */

static void udp_begin(struct connection *c, uint64_t now) {
    c->sequence++;
    c->began_at = now;
    stamp(c);
    if (send(c->fd, message, options.size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        count_error("udp send: %s", strerror(errno));
}

static void udp_ready(struct connection *c) {
    ssize_t n = recv(c->fd, scratch, reply_size + 1, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
        count_error("udp recv: %s", strerror(errno));
        return;
    }
    size_t prefix = reply_size - options.size;
    bool whole = (size_t)n == reply_size;
    stamp(c);
    if (whole && memcmp(scratch + prefix, message, STAMP_BYTES) != 0) return; /* late: was lost */
    if (!whole || memcmp(scratch, reply, reply_size) != 0) {
        count_error("socket %u, datagram %u: wrong bytes", c->number, c->sequence);
        return;
    }
    uint64_t now = now_ns();
    count_message(options.size, now - c->began_at);
    if (window.phase != DRAIN) udp_begin(c, now);
}

static void udp_find_losses(uint64_t now) {
    static uint64_t looked_at;
    if (now - looked_at < TICK_MS * 1000000ull) return;
    looked_at = now;
    for (uint32_t i = 0; i < options.connections; i++) {
        if (now <= connections[i].began_at + UDP_LOSS_NS) continue;
        window.lost++;
        udp_begin(&connections[i], now);
    }
}

/* ---- the runs ------------------------------------------------------------------------------ */

static void open_all(void) {
    for (uint32_t i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        c->number = i;
        if (options.mode == CHURN) {
            churn_begin(c);
        } else if (options.mode == UDP) {
            open_socket(c, SOCK_DGRAM, false);
            if (connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) die("connect");
            watch(c, EPOLL_CTL_ADD, EPOLLIN);
        } else {
            open_and_greet(c);
            watch(c, EPOLL_CTL_ADD, EPOLLIN);
        }
    }
}

static void begin_all(void) {
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < options.connections; i++) {
        if (options.mode == ECHO) echo_begin(&connections[i], now);
        if (options.mode == UDP) udp_begin(&connections[i], now);
        if (options.mode == BULK) bulk_send(&connections[i]);
    }
}

static void run_window(void) {
    struct epoll_event events[MAX_EVENTS];
    begin_warmup();
    begin_all();
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, TICK_MS);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        uint64_t now = now_ns();
        tick_window(now);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd < 0) continue;
            if (options.mode == BULK) bulk_ready(c, events[i].events);
            else if (options.mode == UDP) udp_ready(c);
            else echo_ready(c, events[i].events);
        }
        if (options.mode == UDP && window.phase != DRAIN) udp_find_losses(now);
        if (errors >= MAX_ERRORS) break;
        if (window.phase != DRAIN) {
            if (options.mode == ECHO && outstanding == 0) break; /* every connection failed */
        } else if (outstanding == 0) {
            break;
        } else if (now > window.ended + DRAIN_NS) {
            count_error("%u replies never came", outstanding);
            break;
        }
    }
}

/* Holds the connections until standard input ends; costs no CPU meanwhile. */
static void hold(void) {
    char ignored;
    printf("{\"mode\": \"idle\", \"connections\": %u, \"errors\": 0}\n", options.connections);
    fflush(stdout);
    while (read(STDIN_FILENO, &ignored, 1) > 0) continue;
}

/* ---- the command line ----------------------------------------------------------------------- */

static void usage(void) {
    fputs("usage: load echo|bulk|churn|udp|idle --port PORT [options]\n"
          "  echo   each connection sends a message and waits for the whole reply\n"
          "  bulk   each connection streams as fast as it can and reads the stream back\n"
          "  churn  connect, one message, its reply, close; --connections at a time\n"
          "  udp    each socket sends a datagram and waits for the reply, or its loss\n"
          "  idle   open the connections, say so, hold them until standard input ends\n"
          "  --connections N (1)  --size BYTES (64)  --seconds S (1)  --warmup S (0.2)\n"
          "  --messages N         end the window after N messages, if earlier\n"
          "  --greeting BYTES     swallow so much before the first message\n"
          "  --reply-prefix TEXT  the reply is TEXT and the message\n"
          "  --line               messages end in a newline, and have no other\n"
          "  --server-pid PID     report this process's CPU time in the window\n",
          stderr);
    exit(64);
}

static double parse_number(const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= low && value <= high)) usage();
    return value;
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'},     {"connections", 1, 0, 'c'},  {"size", 1, 0, 's'},
        {"seconds", 1, 0, 't'},  {"warmup", 1, 0, 'w'},       {"messages", 1, 0, 'm'},
        {"greeting", 1, 0, 'g'}, {"reply-prefix", 1, 0, 'r'}, {"line", 0, 0, 'l'},
        {"server-pid", 1, 0, 'P'}, {0, 0, 0, 0}};
    size_t mode = 0;
    if (argc < 2) usage();
    while (mode <= IDLE && strcmp(argv[1], MODE_NAMES[mode]) != 0) mode++;
    if (mode > IDLE) usage();
    options.mode = (enum mode)mode;
    for (int name; (name = getopt_long(argc - 1, argv + 1, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': options.port = (uint16_t)parse_number(optarg, 1, 65535); break;
        case 'c': options.connections = (uint32_t)parse_number(optarg, 1, 1000000); break;
        case 's': options.size = (size_t)parse_number(optarg, STAMP_BYTES + 1, MAX_SIZE); break;
        case 't': options.seconds = parse_number(optarg, 0.001, 3600); break;
        case 'w': options.warmup = parse_number(optarg, 0, 3600); break;
        case 'm': options.messages = (uint64_t)parse_number(optarg, 0, 1e15); break;
        case 'g': options.greeting = (size_t)parse_number(optarg, 0, MAX_SIZE); break;
        case 'r': options.reply_prefix = optarg; break;
        case 'l': options.line = true; break;
        case 'P': options.server_pid = (pid_t)parse_number(optarg, 1, 1 << 30); break;
        default: usage();
        }
    }
    if (optind != argc - 1 || options.port == 0 || strlen(options.reply_prefix) > 60) usage();
    if (options.mode == UDP && options.size > 65000) usage();
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    server.sin_port = htons(options.port);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connections = calloc(options.connections, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || epoll_fd < 0) die("set-up");
    make_buffers();
    if (options.mode != IDLE) alarm((unsigned)(options.seconds + options.warmup) + SLACK_S);
    open_all();
    if (options.mode == IDLE) {
        hold();
    } else {
        run_window();
        print_result();
    }
    return errors == 0 ? 0 : 1;
}
