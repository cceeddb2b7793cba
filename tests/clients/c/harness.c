#include "harness.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_FAILED = 1, EXIT_SKIPPED = 77, TEST_TIMEOUT_SECONDS = 20 };

struct amqp_connection_info broker;

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("  ");
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  fflush(stdout);
  _exit(EXIT_FAILED);
}

void skip(const char *reason) {
  printf("  %s\n", reason);
  fflush(stdout);
  _exit(EXIT_SKIPPED);
}

double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

amqp_connection_state_t open_socket(void) {
  amqp_connection_state_t connection = amqp_new_connection();
  CHECK(connection != NULL);
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  CHECK(socket != NULL);
  int status = amqp_socket_open(socket, broker.host, broker.port);
  if (status != AMQP_STATUS_OK) fail("connecting: %s", amqp_error_string2(status));
  return connection;
}

amqp_rpc_reply_t login(amqp_connection_state_t connection, const char *vhost, int frame_max, int heartbeat,
                       const char *password) {
  amqp_table_entry_t capability[1] = {{.key = amqp_cstring_bytes("consumer_cancel_notify"),
                                       .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}}}};
  amqp_table_entry_t entry[2] = {{.key = amqp_cstring_bytes("capabilities"),
                                  .value = {.kind = AMQP_FIELD_KIND_TABLE}},
                                 text_entry("connection_name", "warren c tests")};
  entry[0].value.value.table = (amqp_table_t){.num_entries = 1, .entries = capability};
  amqp_table_t properties = {.num_entries = 2, .entries = entry};
  return amqp_login_with_properties(connection, vhost, 0, frame_max, heartbeat, &properties, AMQP_SASL_METHOD_PLAIN,
                                    broker.user, password);
}

amqp_connection_state_t connect_with(int frame_max, int heartbeat) {
  amqp_connection_state_t connection = open_socket();
  expect_normal_reply(login(connection, broker.vhost, frame_max, heartbeat, broker.password), "login");
  open_channel(connection, CHANNEL);
  return connection;
}

amqp_connection_state_t connect_broker(void) { return connect_with(DEFAULT_FRAME_MAX, NO_HEARTBEAT); }

void open_channel(amqp_connection_state_t connection, amqp_channel_t channel) {
  amqp_channel_open(connection, channel);
  expect_normal(connection, "channel.open");
}

void disconnect(amqp_connection_state_t connection) {
  expect_normal_reply(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
  CHECK(amqp_destroy_connection(connection) == AMQP_STATUS_OK);
}

bool is_reference(amqp_connection_state_t connection) {
  const amqp_table_t *properties = amqp_get_server_properties(connection);
  for (int index = 0; index < properties->num_entries; index++) {
    const amqp_table_entry_t *entry = &properties->entries[index];
    if (bytes_equal(entry->key, "platform") && entry->value.kind == AMQP_FIELD_KIND_UTF8)
      return entry->value.value.bytes.len >= 6 && memcmp(entry->value.value.bytes.bytes, "Erlang", 6) == 0;
  }
  return false;
}

/* What a close method of either kind says. */
static void check_close(int code, amqp_bytes_t text, int class_id, int method_id, int wanted_code,
                        const char *wanted_text, int wanted_class, int wanted_method) {
  if (code != wanted_code || (wanted_text[0] != '\0' && !bytes_equal(text, wanted_text)))
    fail("expected %d %s, got %d %.*s", wanted_code, wanted_text, code, (int)text.len, (char *)text.bytes);
  if (class_id != wanted_class || method_id != wanted_method)
    fail("%.*s: expected class %d method %d, got %d and %d", (int)text.len, (char *)text.bytes, wanted_class,
         wanted_method, class_id, method_id);
}

void expect_normal_reply(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
  if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
    fail("%s: %s", what, amqp_error_string2(reply.library_error));
  if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
    amqp_channel_close_t *close = reply.reply.decoded;
    fail("%s: %.*s", what, (int)close->reply_text.len, (char *)close->reply_text.bytes);
  }
  if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
    amqp_connection_close_t *close = reply.reply.decoded;
    fail("%s: %.*s", what, (int)close->reply_text.len, (char *)close->reply_text.bytes);
  }
  fail("%s: no answer", what);
}

void expect_normal(amqp_connection_state_t connection, const char *what) {
  expect_normal_reply(amqp_get_rpc_reply(connection), what);
}

static void answer_channel_close(amqp_connection_state_t connection, amqp_channel_t channel) {
  amqp_channel_close_ok_t answer = {0};
  CHECK(amqp_send_method(connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer) == AMQP_STATUS_OK);
}

void expect_channel_close(amqp_connection_state_t connection, amqp_channel_t channel, amqp_rpc_reply_t reply, int code,
                          const char *text, int class_id, int method_id) {
  if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || reply.reply.id != AMQP_CHANNEL_CLOSE_METHOD)
    fail("expected %d %s, got reply type %d, method %#x", code, text, reply.reply_type, reply.reply.id);
  amqp_channel_close_t *close = reply.reply.decoded;
  check_close(close->reply_code, close->reply_text, close->class_id, close->method_id, code, text, class_id,
              method_id);
  answer_channel_close(connection, channel);
}

void expect_asynchronous_channel_close(amqp_connection_state_t connection, amqp_channel_t channel, int code,
                                       const char *text, int class_id, int method_id) {
  amqp_channel_close_t *close = next_method(connection, AMQP_CHANNEL_CLOSE_METHOD);
  check_close(close->reply_code, close->reply_text, close->class_id, close->method_id, code, text, class_id,
              method_id);
  answer_channel_close(connection, channel);
}

void expect_connection_close(amqp_rpc_reply_t reply, int code, const char *text, int class_id, int method_id) {
  if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
    fail("expected %d %s, got %s", code, text, amqp_error_string2(reply.library_error));
  if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || reply.reply.id != AMQP_CONNECTION_CLOSE_METHOD)
    fail("expected %d %s, got reply type %d, method %#x", code, text, reply.reply_type, reply.reply.id);
  amqp_connection_close_t *close = reply.reply.decoded;
  check_close(close->reply_code, close->reply_text, close->class_id, close->method_id, code, text, class_id,
              method_id);
}

void expect_asynchronous_connection_close(amqp_connection_state_t connection, int code, const char *text, int class_id,
                                          int method_id) {
  amqp_connection_close_t *close = next_method(connection, AMQP_CONNECTION_CLOSE_METHOD);
  check_close(close->reply_code, close->reply_text, close->class_id, close->method_id, code, text, class_id,
              method_id);
  amqp_connection_close_ok_t answer = {0};
  CHECK(amqp_send_method(connection, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &answer) == AMQP_STATUS_OK);
}

amqp_frame_t next_frame(amqp_connection_state_t connection) {
  amqp_frame_t frame;
  struct timeval timeout = {.tv_sec = DEADLINE_SECONDS};
  int status = amqp_simple_wait_frame_noblock(connection, &frame, &timeout);
  if (status != AMQP_STATUS_OK) fail("waiting for a frame: %s", amqp_error_string2(status));
  return frame;
}

void *next_method(amqp_connection_state_t connection, amqp_method_number_t method) {
  amqp_frame_t frame = next_frame(connection);
  if (frame.frame_type != AMQP_FRAME_METHOD) fail("expected a method, got frame type %d", frame.frame_type);
  if (frame.payload.method.id != method)
    fail("expected %s, got %s", amqp_method_name(method), amqp_method_name(frame.payload.method.id));
  return frame.payload.method.decoded;
}

amqp_bytes_t declare_queue(amqp_connection_state_t connection, amqp_table_t arguments) {
  amqp_queue_declare_ok_t *declared =
      amqp_queue_declare(connection, CHANNEL, amqp_empty_bytes, 0, 0, 1, 0, arguments);
  expect_normal(connection, "queue.declare");
  return amqp_bytes_malloc_dup(declared->queue);
}

void publish(amqp_connection_state_t connection, const char *exchange, amqp_bytes_t routing_key,
             const amqp_basic_properties_t *properties, amqp_bytes_t body) {
  int status = amqp_basic_publish(connection, CHANNEL, amqp_cstring_bytes(exchange), routing_key, 0, 0, properties,
                                  body);
  if (status != AMQP_STATUS_OK) fail("basic.publish: %s", amqp_error_string2(status));
}

amqp_message_t await_message(amqp_connection_state_t connection, amqp_bytes_t queue) {
  double deadline = seconds_now() + DEADLINE_SECONDS;
  while (seconds_now() < deadline) {
    amqp_rpc_reply_t reply = amqp_basic_get(connection, CHANNEL, queue, 1);
    expect_normal_reply(reply, "basic.get");
    if (reply.reply.id == AMQP_BASIC_GET_OK_METHOD) {
      amqp_message_t message;
      expect_normal_reply(amqp_read_message(connection, CHANNEL, &message, 0), "reading a message");
      return message;
    }
    usleep(10000);
  }
  fail("no message came");
}

uint32_t ready_messages(amqp_connection_state_t connection, amqp_bytes_t queue) {
  amqp_queue_declare_ok_t *counted =
      amqp_queue_declare(connection, CHANNEL, queue, 1, 0, 0, 0, amqp_empty_table);
  expect_normal(connection, "passive queue.declare");
  return counted->message_count;
}

void await_ready_messages(amqp_connection_state_t connection, amqp_bytes_t queue, uint32_t count) {
  double deadline = seconds_now() + DEADLINE_SECONDS;
  while (ready_messages(connection, queue) != count) {
    if (seconds_now() >= deadline) fail("the queue did not come to hold %u messages", count);
    usleep(10000);
  }
}

bool bytes_equal(amqp_bytes_t bytes, const char *text) {
  return bytes.len == strlen(text) && memcmp(bytes.bytes, text, bytes.len) == 0;
}

amqp_bytes_t patterned_body(size_t size) {
  amqp_bytes_t body = amqp_bytes_malloc(size);
  CHECK(body.bytes != NULL || size == 0);
  for (size_t position = 0; position < size; position++)
    ((unsigned char *)body.bytes)[position] = (unsigned char)((position * 31 + size) ^ (position >> 11));
  return body;
}

amqp_table_t one_argument(const char *name, int32_t value) {
  amqp_table_entry_t *entry = calloc(1, sizeof *entry);
  CHECK(entry != NULL);
  entry->key = amqp_cstring_bytes(name);
  entry->value.kind = AMQP_FIELD_KIND_I32;
  entry->value.value.i32 = value;
  return (amqp_table_t){.num_entries = 1, .entries = entry};
}

amqp_table_entry_t text_entry(const char *key, const char *value) {
  amqp_table_entry_t entry = {.key = amqp_cstring_bytes(key), .value = {.kind = AMQP_FIELD_KIND_UTF8}};
  entry.value.value.bytes = amqp_cstring_bytes(value);
  return entry;
}

/* Runs the test in a process of its own, so that no test can harm another. Prints one line for it. */
static void run_test(const struct test *test, int counts[3]) {
  fflush(stdout);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(TEST_TIMEOUT_SECONDS);
    test->run();
    fflush(stdout);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    printf("ok   %s\n", test->name);
    counts[0]++;
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
    printf("skip %s\n", test->name);
    counts[2]++;
  } else {
    if (WIFSIGNALED(status)) printf("  signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    printf("FAIL %s\n", test->name);
    counts[1]++;
  }
}

int main(int count, char **arguments) {
  if (count < 2 || amqp_parse_url(arguments[1], &broker) != AMQP_STATUS_OK) {
    fprintf(stderr, "usage: %s amqp://user:password@host:port/vhost [test]\n", arguments[0]);
    return 2;
  }
  const struct test *groups[] = {publishing_tests, message_tests, error_tests, rpc_tests, connection_tests};
  int counts[3] = {0, 0, 0};
  for (size_t group = 0; group < sizeof groups / sizeof groups[0]; group++)
    for (const struct test *test = groups[group]; test->name != NULL; test++)
      if (count < 3 || strcmp(test->name, arguments[2]) == 0) run_test(test, counts);
  return counts[1] == 0 && counts[0] + counts[2] > 0 ? 0 : 1;
}
