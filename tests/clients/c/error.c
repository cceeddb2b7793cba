/* The exact code, text, class and method of errors, those included that only a broken client provokes. */
#include "harness.h"

#include <stdio.h>
#include <string.h>

/* "<before>'<name>' in vhost '<vhost>'<after>", valid until the next call. */
static const char *about(const char *before, amqp_bytes_t name, const char *after) {
  static char text[512];
  snprintf(text, sizeof text, "%s'%.*s' in vhost '%s'%s", before, (int)name.len, (char *)name.bytes, broker.vhost,
           after);
  return text;
}

static void channel_errors_leave_the_connection(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t missing = amqp_cstring_bytes("missing");
  amqp_queue_declare(connection, CHANNEL, missing, 1, 0, 0, 0, amqp_empty_table);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 404,
                       about("NOT_FOUND - no queue ", missing, ""), 50, 10);
  open_channel(connection, CHANNEL);
  expect_channel_close(connection, CHANNEL, amqp_basic_get(connection, CHANNEL, missing, 1), 404,
                       about("NOT_FOUND - no queue ", missing, ""), 60, 70);
  open_channel(connection, CHANNEL);
  amqp_exchange_declare(connection, CHANNEL, missing, amqp_cstring_bytes("direct"), 1, 0, 0, 0, amqp_empty_table);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 404,
                       about("NOT_FOUND - no exchange ", missing, ""), 40, 10);
  open_channel(connection, CHANNEL);
  publish(connection, "missing", amqp_empty_bytes, NULL, amqp_cstring_bytes("lost"));
  expect_asynchronous_channel_close(connection, CHANNEL, 404, about("NOT_FOUND - no exchange ", missing, ""), 60, 40);
  open_channel(connection, CHANNEL);
  CHECK(amqp_basic_ack(connection, CHANNEL, 42, 0) == AMQP_STATUS_OK);
  expect_asynchronous_channel_close(connection, CHANNEL, 406, "PRECONDITION_FAILED - unknown delivery tag 42", 60, 80);
  open_channel(connection, CHANNEL);
  disconnect(connection);
}

static void a_closed_channel_swallows_what_follows(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_channel_t failing = 2;
  open_channel(connection, failing);
  CHECK(amqp_basic_ack(connection, failing, 1, 0) == AMQP_STATUS_OK);
  for (int message = 0; message < 10; message++)
    CHECK(amqp_basic_publish(connection, failing, amqp_empty_bytes, queue, 0, 0, NULL, amqp_cstring_bytes("lost")) ==
          AMQP_STATUS_OK);
  expect_asynchronous_channel_close(connection, failing, 406, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80);
  open_channel(connection, failing);
  CHECK(ready_messages(connection, queue) == 0);
  disconnect(connection);
}

static void different_arguments(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = amqp_cstring_bytes("c-different-arguments");
  amqp_queue_declare(connection, CHANNEL, queue, 0, 0, 1, 0, one_argument("x-max-length", 10));
  expect_normal(connection, "queue.declare");
  amqp_queue_declare(connection, CHANNEL, queue, 0, 0, 1, 0, amqp_empty_table);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 406,
                       about("PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue ", queue,
                             ": received none but current is the value '10' of type 'signedint'"),
                       50, 10);
  disconnect(connection);
}

static void locked_and_reserved(void) {
  amqp_connection_state_t owner = connect_broker();
  amqp_bytes_t queue = declare_queue(owner, amqp_empty_table);
  amqp_connection_state_t connection = connect_broker();
  amqp_queue_declare(connection, CHANNEL, queue, 1, 0, 0, 0, amqp_empty_table);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 405,
                       about("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue ", queue,
                             ". It could be originally declared on another connection or the exclusive property"
                             " value does not match that of the original declaration."),
                       50, 10);
  open_channel(connection, CHANNEL);
  amqp_queue_declare(connection, CHANNEL, amqp_cstring_bytes("amq.mine"), 0, 0, 1, 0, amqp_empty_table);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 403,
                       "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", 50, 10);
  disconnect(connection);
  disconnect(owner);
}

static void conditional_deletion(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  publish(connection, "", queue, NULL, amqp_cstring_bytes("message"));
  await_ready_messages(connection, queue, 1);
  amqp_queue_delete(connection, CHANNEL, queue, 0, 1);
  expect_channel_close(connection, CHANNEL, amqp_get_rpc_reply(connection), 406,
                       about("PRECONDITION_FAILED - queue ", queue, " not empty"), 50, 40);
  open_channel(connection, CHANNEL);
  amqp_queue_delete_ok_t *deleted = amqp_queue_delete(connection, CHANNEL, queue, 1, 0);
  expect_normal(connection, "queue.delete");
  CHECK(deleted->message_count == 1);
  disconnect(connection);
}

static void a_reused_consumer_tag_closes_the_connection(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_bytes_t tag = amqp_cstring_bytes("twice");
  amqp_basic_consume(connection, CHANNEL, queue, tag, 0, 0, 0, amqp_empty_table);
  expect_normal(connection, "basic.consume");
  amqp_basic_consume(connection, CHANNEL, queue, tag, 0, 0, 0, amqp_empty_table);
  expect_connection_close(amqp_get_rpc_reply(connection), 530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'",
                          60, 20);
}

static void unsupported_requests_close_the_connection(void) {
  amqp_connection_state_t connection = connect_broker();
  CHECK(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, amqp_empty_bytes, 0, 1, NULL, amqp_empty_bytes) ==
        AMQP_STATUS_OK);
  expect_asynchronous_connection_close(connection, 540, "NOT_IMPLEMENTED - immediate=true", 60, 40);
  connection = connect_broker();
  amqp_channel_flow(connection, CHANNEL, 0);
  expect_connection_close(amqp_get_rpc_reply(connection), 540, "NOT_IMPLEMENTED - active=false", 20, 20);
  connection = connect_broker();
  amqp_basic_qos(connection, CHANNEL, 5, 1, 0);
  expect_connection_close(amqp_get_rpc_reply(connection), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)", 60, 10);
  connection = connect_broker();
  amqp_basic_recover(connection, CHANNEL, 0);
  expect_connection_close(amqp_get_rpc_reply(connection), 540, "NOT_IMPLEMENTED - requeue=false", 60, 110);
}

static void channels_are_opened_once_and_first(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_channel_open(connection, CHANNEL);
  expect_connection_close(amqp_get_rpc_reply(connection), 504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10);
  connection = connect_broker();
  amqp_basic_qos(connection, 9, 0, 1, 0);
  expect_connection_close(amqp_get_rpc_reply(connection), 504, "CHANNEL_ERROR - expected 'channel.open'", 60, 10);
}

static void methods_only_a_server_sends(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_basic_get_empty_t empty = {.cluster_id = amqp_empty_bytes};
  CHECK(amqp_send_method(connection, CHANNEL, AMQP_BASIC_GET_EMPTY_METHOD, &empty) == AMQP_STATUS_OK);
  expect_asynchronous_connection_close(connection, 503, "COMMAND_INVALID - unimplemented method", 60, 72);
}

/* Frames in an order the protocol does not allow. */
static void unexpected_frames(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_frame_t body = {.frame_type = AMQP_FRAME_BODY, .channel = CHANNEL};
  body.payload.body_fragment = amqp_cstring_bytes("body");
  CHECK(amqp_send_frame(connection, &body) == AMQP_STATUS_OK);
  expect_asynchronous_connection_close(
      connection, 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", 0, 0);

  connection = connect_broker();
  amqp_basic_publish_t publishing = {.exchange = amqp_empty_bytes, .routing_key = amqp_empty_bytes};
  CHECK(amqp_send_method(connection, CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &publishing) == AMQP_STATUS_OK);
  CHECK(amqp_send_frame(connection, &body) == AMQP_STATUS_OK);
  expect_asynchronous_connection_close(
      connection, 505,
      "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead", 60, 40);

  connection = connect_broker();
  CHECK(amqp_send_method(connection, CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &publishing) == AMQP_STATUS_OK);
  amqp_basic_properties_t none = {0};
  amqp_frame_t header = {.frame_type = AMQP_FRAME_HEADER, .channel = CHANNEL};
  header.payload.properties.class_id = AMQP_BASIC_CLASS;
  header.payload.properties.body_size = 2;
  header.payload.properties.decoded = &none;
  CHECK(amqp_send_frame(connection, &header) == AMQP_STATUS_OK);
  CHECK(amqp_send_frame(connection, &body) == AMQP_STATUS_OK);
  expect_asynchronous_connection_close(connection, 501,
                                       "FRAME_ERROR - content body frame exceeds remaining content size", 60, 40);

  connection = connect_broker();
  amqp_frame_t heartbeat = {.frame_type = AMQP_FRAME_HEARTBEAT, .channel = CHANNEL};
  CHECK(amqp_send_frame(connection, &heartbeat) == AMQP_STATUS_OK);
  expect_asynchronous_connection_close(connection, 505, "", 0, 0);
}

static void refused_logins(void) {
  amqp_connection_state_t connection = open_socket();
  expect_connection_close(login(connection, broker.vhost, DEFAULT_FRAME_MAX, NO_HEARTBEAT, "wrong"), 403,
                          "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see"
                          " the broker logfile.",
                          0, 0);
  connection = open_socket();
  expect_connection_close(login(connection, "nowhere", DEFAULT_FRAME_MAX, NO_HEARTBEAT, broker.password), 530,
                          "NOT_ALLOWED - vhost nowhere not found", 10, 40);
}

const struct test error_tests[] = {
    {"channel errors leave the connection alone", channel_errors_leave_the_connection},
    {"a closed channel swallows what follows", a_closed_channel_swallows_what_follows},
    {"a queue declared with different arguments", different_arguments},
    {"locked queues and reserved names", locked_and_reserved},
    {"conditional deletion", conditional_deletion},
    {"a reused consumer tag closes the connection", a_reused_consumer_tag_closes_the_connection},
    {"unsupported requests close the connection", unsupported_requests_close_the_connection},
    {"channels are opened once, and first", channels_are_opened_once_and_first},
    {"methods only a server sends", methods_only_a_server_sends},
    {"unexpected frames", unexpected_frames},
    {"refused logins", refused_logins},
    {NULL, NULL}};
