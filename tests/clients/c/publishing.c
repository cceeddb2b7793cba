/* Confirms, refusals and returns. */
#include "harness.h"

enum { MESSAGES = 500 };

static void confirm_mode(amqp_connection_state_t connection) {
  amqp_confirm_select(connection, CHANNEL);
  expect_normal(connection, "confirm.select");
}

static void confirms_cover_every_message_once(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  confirm_mode(connection);
  for (int message = 0; message < MESSAGES; message++)
    publish(connection, "", queue, NULL, amqp_cstring_bytes("message"));
  bool confirmed[MESSAGES + 1] = {false};
  int covered = 0;
  while (covered < MESSAGES) {
    amqp_basic_ack_t *ack = next_method(connection, AMQP_BASIC_ACK_METHOD);
    CHECK(ack->delivery_tag >= 1 && ack->delivery_tag <= MESSAGES);
    CHECK(!confirmed[ack->delivery_tag]);
    for (uint64_t tag = ack->multiple ? 1 : ack->delivery_tag; tag <= ack->delivery_tag; tag++) {
      covered += !confirmed[tag];
      confirmed[tag] = true;
    }
  }
  CHECK(ready_messages(connection, queue) == MESSAGES);
  disconnect(connection);
}

static void a_return_comes_before_its_confirm(void) {
  amqp_connection_state_t connection = connect_broker();
  confirm_mode(connection);
  amqp_basic_properties_t properties = {._flags = AMQP_BASIC_MESSAGE_ID_FLAG,
                                        .message_id = amqp_cstring_bytes("unroutable")};
  CHECK(amqp_basic_publish(connection, CHANNEL, amqp_cstring_bytes("amq.direct"), amqp_cstring_bytes("nobody"), 1, 0,
                           &properties, amqp_cstring_bytes("come back")) == AMQP_STATUS_OK);
  amqp_basic_return_t *returned = next_method(connection, AMQP_BASIC_RETURN_METHOD);
  CHECK(returned->reply_code == 312);
  CHECK(bytes_equal(returned->reply_text, "NO_ROUTE"));
  CHECK(bytes_equal(returned->exchange, "amq.direct"));
  CHECK(bytes_equal(returned->routing_key, "nobody"));
  amqp_message_t message;
  expect_normal_reply(amqp_read_message(connection, CHANNEL, &message, 0), "the returned message");
  CHECK(bytes_equal(message.body, "come back"));
  CHECK(bytes_equal(message.properties.message_id, "unroutable"));
  amqp_basic_ack_t *ack = next_method(connection, AMQP_BASIC_ACK_METHOD);
  CHECK(ack->delivery_tag == 1);
  disconnect(connection);
}

static void a_full_queue_nacks(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_table_entry_t entries[2];
  entries[0] = *one_argument("x-max-length", 1).entries;
  entries[1] = text_entry("x-overflow", "reject-publish");
  amqp_bytes_t queue = declare_queue(connection, (amqp_table_t){.num_entries = 2, .entries = entries});
  confirm_mode(connection);
  publish(connection, "", queue, NULL, amqp_cstring_bytes("fits"));
  amqp_basic_ack_t *ack = next_method(connection, AMQP_BASIC_ACK_METHOD);
  CHECK(ack->delivery_tag == 1);
  publish(connection, "", queue, NULL, amqp_cstring_bytes("does not"));
  amqp_basic_nack_t *nack = next_method(connection, AMQP_BASIC_NACK_METHOD);
  CHECK(nack->delivery_tag == 2);
  disconnect(connection);
}

static void transactions_commit_and_roll_back(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_tx_select(connection, CHANNEL);
  expect_normal(connection, "tx.select");
  publish(connection, "", queue, NULL, amqp_cstring_bytes("dropped"));
  amqp_tx_rollback(connection, CHANNEL);
  expect_normal(connection, "tx.rollback");
  publish(connection, "", queue, NULL, amqp_cstring_bytes("kept"));
  CHECK(ready_messages(connection, queue) == 0);
  amqp_tx_commit(connection, CHANNEL);
  expect_normal(connection, "tx.commit");
  CHECK(ready_messages(connection, queue) == 1);
  amqp_message_t message = await_message(connection, queue);
  CHECK(bytes_equal(message.body, "kept"));
  disconnect(connection);
}

static void a_deleted_queue_cancels_its_consumer(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  amqp_basic_consume(connection, CHANNEL, queue, amqp_cstring_bytes("consumer"), 0, 0, 0, amqp_empty_table);
  expect_normal(connection, "basic.consume");
  amqp_channel_t other = 2;
  open_channel(connection, other);
  amqp_queue_delete(connection, other, queue, 0, 0);
  expect_normal(connection, "queue.delete");
  amqp_basic_cancel_t *cancel = next_method(connection, AMQP_BASIC_CANCEL_METHOD);
  CHECK(bytes_equal(cancel->consumer_tag, "consumer"));
  CHECK(cancel->nowait);
  disconnect(connection);
}

static void unacknowledged_messages_come_back(void) {
  amqp_connection_state_t connection = connect_broker();
  amqp_bytes_t queue = declare_queue(connection, amqp_empty_table);
  publish(connection, "", queue, NULL, amqp_cstring_bytes("again"));
  amqp_channel_t other = 2;
  open_channel(connection, other);
  double deadline = seconds_now() + DEADLINE_SECONDS;
  amqp_rpc_reply_t reply;
  do {
    CHECK(seconds_now() < deadline);
    reply = amqp_basic_get(connection, other, queue, 0);
    expect_normal_reply(reply, "basic.get");
  } while (reply.reply.id != AMQP_BASIC_GET_OK_METHOD);
  CHECK(!((amqp_basic_get_ok_t *)reply.reply.decoded)->redelivered);
  amqp_message_t message;
  expect_normal_reply(amqp_read_message(connection, other, &message, 0), "the message");
  expect_normal_reply(amqp_channel_close(connection, other, AMQP_REPLY_SUCCESS), "channel.close");
  do {
    CHECK(seconds_now() < deadline);
    reply = amqp_basic_get(connection, CHANNEL, queue, 1);
    expect_normal_reply(reply, "basic.get");
  } while (reply.reply.id != AMQP_BASIC_GET_OK_METHOD);
  CHECK(((amqp_basic_get_ok_t *)reply.reply.decoded)->redelivered);
  expect_normal_reply(amqp_read_message(connection, CHANNEL, &message, 0), "the message again");
  CHECK(bytes_equal(message.body, "again"));
  disconnect(connection);
}

const struct test publishing_tests[] = {
    {"confirms cover every message once", confirms_cover_every_message_once},
    {"a return comes before its confirm", a_return_comes_before_its_confirm},
    {"a full queue with reject-publish nacks", a_full_queue_nacks},
    {"transactions commit and roll back", transactions_commit_and_roll_back},
    {"a deleted queue cancels its consumer", a_deleted_queue_cancels_its_consumer},
    {"unacknowledged messages come back", unacknowledged_messages_come_back},
    {NULL, NULL}};
