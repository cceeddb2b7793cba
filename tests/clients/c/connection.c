/* Tuning and heartbeats. */
#include "harness.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void the_broker_proposes_and_the_client_lowers(void) {
  amqp_connection_state_t connection = connect_with(8 * DEFAULT_FRAME_MAX, 60);
  CHECK(amqp_get_frame_max(connection) == DEFAULT_FRAME_MAX);
  CHECK(amqp_get_channel_max(connection) == 2047);
  CHECK(amqp_get_heartbeat(connection) == 60);
  disconnect(connection);
  connection = connect_with(10000, 7);
  CHECK(amqp_get_frame_max(connection) == 10000);
  CHECK(amqp_get_heartbeat(connection) == 7);
  disconnect(connection);
}

static void every_channel_opens(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_channel_t highest = (amqp_channel_t)amqp_get_channel_max(connection);
  for (amqp_channel_t channel = CHANNEL + 1; channel <= highest; channel++) open_channel(connection, channel);
  amqp_exchange_declare(connection, highest, amqp_cstring_bytes("amq.direct"), amqp_cstring_bytes("direct"), 1, 0, 0,
                        0, amqp_empty_table);
  expect_normal(connection, "exchange.declare on the highest channel");
  disconnect(connection);
}

/* The library answers heartbeats while it waits, and itself gives up on a broker that is silent for two intervals. */
static void heartbeats_keep_an_idle_connection(void) {
  amqp_connection_state_t connection = connect_with(DEFAULT_FRAME_MAX, 1);
  amqp_frame_t frame;
  struct timeval waiting = {.tv_sec = 3, .tv_usec = 500000};
  int status = amqp_simple_wait_frame_noblock(connection, &frame, &waiting);
  if (status != AMQP_STATUS_TIMEOUT) fail("while idle: %s", amqp_error_string2(status));
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  CHECK(ready_messages(connection, queue) == 0);
  disconnect(connection);
}

/* A client that sends nothing is dropped two to three intervals after its last byte; until then the broker's own
 * heartbeats arrive, and nothing else. */
static void a_silent_client_is_dropped(void) {
  amqp_connection_state_t connection = connect_with(DEFAULT_FRAME_MAX, 1);
  static const unsigned char heartbeat[8] = {8, 0, 0, 0, 0, 0, 0, 0xCE};
  double start = seconds_now();
  unsigned char received[4096];
  size_t length = 0;
  struct pollfd waiting = {.fd = amqp_get_sockfd(connection), .events = POLLIN};
  for (;;) {
    int left = (int)((start + 6 - seconds_now()) * 1000);
    if (left <= 0 || poll(&waiting, 1, left) <= 0) fail("still connected after 6 seconds of silence");
    ssize_t count = recv(waiting.fd, received + length, sizeof received - length, 0);
    if (count <= 0) break;
    length += (size_t)count;
    CHECK(length < sizeof received);
  }
  double lasted = seconds_now() - start;
  if (lasted < 1.5) fail("dropped after %.1f seconds", lasted);
  CHECK(length >= 2 * sizeof heartbeat && length % sizeof heartbeat == 0);
  for (size_t offset = 0; offset < length; offset += sizeof heartbeat)
    CHECK(memcmp(received + offset, heartbeat, sizeof heartbeat) == 0);
}

static void a_lost_connection_gives_back_its_messages(void) {
  amqp_connection_state_t keeping = connect_broker();
  amqp_bytes_t queue = amqp_cstring_bytes("c-lost-connection");
  amqp_queue_declare(keeping, CHANNEL, queue, 0, 1, 0, 0, amqp_empty_table);
  expect_normal(keeping, "queue.declare");
  publish(keeping, "", queue, NULL, amqp_cstring_bytes("held"));
  amqp_connection_state_t losing = connect_broker();
  amqp_basic_consume(losing, CHANNEL, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  expect_normal(losing, "basic.consume");
  next_method(losing, AMQP_BASIC_DELIVER_METHOD);
  CHECK(close(amqp_get_sockfd(losing)) == 0);
  amqp_message_t message = await_message(keeping, queue);
  CHECK(bytes_equal(message.body, "held"));
  amqp_queue_delete(keeping, CHANNEL, queue, 0, 0);
  expect_normal(keeping, "queue.delete");
  disconnect(keeping);
}

const struct test connection_tests[] = {
    {"the broker proposes and the client lowers", the_broker_proposes_and_the_client_lowers},
    {"every channel opens", every_channel_opens},
    {"heartbeats keep an idle connection", heartbeats_keep_an_idle_connection},
    {"a silent client is dropped", a_silent_client_is_dropped},
    {"a lost connection gives back its messages", a_lost_connection_gives_back_its_messages},
    {NULL, NULL}};
