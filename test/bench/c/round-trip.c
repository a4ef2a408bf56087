/* The yardstick of the request round trip: GET_FEATURES as the protocol frames it, and nothing else around it.
 *   round-trip backend PATH                     serves one front-end until it hangs up
 *   round-trip frontend PATH WARMUP N in-line   prints the nanoseconds of one round trip, the mean of N
 * A request is one sendmsg of 12 bytes; a reply is one of 20, received as 12 and then 8 bytes with room for 8 fds,
 * because asking for more than a header could join two messages. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { GET_FEATURES = 1, SET_OWNER = 3, VERSION = 1, REPLY = 4, MAX_FDS = 8 };

struct header {
  uint32_t request, flags, size;
};

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int receive(int socket, void *bytes, size_t size) {
  char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
  size_t have = 0;
  while (have < size) {
    struct iovec piece = {(char *)bytes + have, size - have};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (got < 0) fail("recvmsg");
    if (got == 0) return 0;
    have += (size_t)got;
  }
  return 1;
}

static void send_all(int socket, void *bytes, size_t size) {
  struct iovec piece = {bytes, size};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != (ssize_t)size) fail("sendmsg");
}

static struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return address;
}

static void backend(const char *path) {
  struct sockaddr_un address = address_of(path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0) fail(path);
  puts("ready");
  fflush(stdout);
  int socket = accept(listener, NULL, NULL);
  if (socket < 0) fail("accept");
  struct header header;
  char payload[4096];
  while (receive(socket, &header, sizeof header)) {
    if (header.size > sizeof payload || !receive(socket, payload, header.size)) return;
    if (header.request != GET_FEATURES) continue;
    struct {
      struct header header;
      uint32_t features[2];
    } reply = {{GET_FEATURES, VERSION | REPLY, 8}, {0x40000000, 1}};
    send_all(socket, &reply, sizeof reply);
  }
}

static uint64_t get_features(int socket) {
  struct header request = {GET_FEATURES, VERSION, 0}, header;
  uint64_t features;
  send_all(socket, &request, sizeof request);
  if (!receive(socket, &header, sizeof header)) exit(1);
  if (header.request != GET_FEATURES || header.flags != (VERSION | REPLY) || header.size != sizeof features) exit(1);
  if (!receive(socket, &features, sizeof features)) exit(1);
  return features;
}

static void frontend(const char *path, long warm_up, long count) {
  struct sockaddr_un address = address_of(path);
  int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0 || connect(socket_fd, (struct sockaddr *)&address, sizeof address) < 0) fail(path);
  struct header owner = {SET_OWNER, VERSION, 0};
  send_all(socket_fd, &owner, sizeof owner);
  uint64_t seen = 0;
  for (long i = 0; i < warm_up; i++) seen |= get_features(socket_fd);
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < count; i++) seen |= get_features(socket_fd);
  clock_gettime(CLOCK_MONOTONIC, &end);
  if (seen == 0) exit(1);
  double ns = (end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec);
  printf("%.1f\n", ns / count);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "backend") == 0) backend(argv[2]);
  else if (argc == 6 && strcmp(argv[1], "frontend") == 0) frontend(argv[2], atol(argv[3]), atol(argv[4]));
  else return 2;
  return 0;
}
