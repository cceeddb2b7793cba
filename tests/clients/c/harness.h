/* What the tests share: connections, checks, waiting for frames and reading why a broker closed something. */
#ifndef HARNESS_H
#define HARNESS_H

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

enum {
  CHANNEL = 1,            /* the channel that connect_broker opens */
  DEADLINE_SECONDS = 10,  /* how long an answer may take */
  DEFAULT_FRAME_MAX = 131072,
  NO_HEARTBEAT = 0
};

/* A test returns when it passed; anything else goes through fail or skip. */
struct test {
  const char *name;
  void (*run)(void);
};

extern const struct test publishing_tests[];
extern const struct test message_tests[];
extern const struct test error_tests[];
extern const struct test rpc_tests[];
extern const struct test connection_tests[];

/* The broker under test, from the URL on the command line. */
extern struct amqp_connection_info broker;

/* Ends the test as failed, naming the reason. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
/* Ends the test as skipped. */
__attribute__((noreturn)) void skip(const char *reason);

#define CHECK(condition) \
  do { if (!(condition)) fail("%s:%d: %s", __FILE__, __LINE__, #condition); } while (0)

/* A TCP connection without any AMQP on it yet. */
amqp_connection_state_t open_socket(void);
/* Logs in; the answer is for the caller to judge. */
amqp_rpc_reply_t login(amqp_connection_state_t connection, const char *vhost, int frame_max, int heartbeat,
                       const char *password);
/* A connection with CHANNEL open. */
amqp_connection_state_t connect_broker(void);
amqp_connection_state_t connect_with(int frame_max, int heartbeat);
void open_channel(amqp_connection_state_t connection, amqp_channel_t channel);
/* Closes the connection and fails when the broker does not agree. */
void disconnect(amqp_connection_state_t connection);
/* Whether the broker is the RabbitMQ reference rather than Warren. */
bool is_reference(amqp_connection_state_t connection);

/* Fails when the last call did not get its answer. */
void expect_normal(amqp_connection_state_t connection, const char *what);
void expect_normal_reply(amqp_rpc_reply_t reply, const char *what);
/* Fails unless the reply is a channel.close with exactly this; answers it with channel.close-ok. */
void expect_channel_close(amqp_connection_state_t connection, amqp_channel_t channel, amqp_rpc_reply_t reply, int code,
                          const char *text, int class_id, int method_id);
/* The same for a close that comes without having been waited for by a call. */
void expect_asynchronous_channel_close(amqp_connection_state_t connection, amqp_channel_t channel, int code,
                                       const char *text, int class_id, int method_id);
/* Fails unless the reply is a connection.close with exactly this; an empty text means any. */
void expect_connection_close(amqp_rpc_reply_t reply, int code, const char *text, int class_id, int method_id);
/* Waits for a connection.close with exactly this; an empty text means any. */
void expect_asynchronous_connection_close(amqp_connection_state_t connection, int code, const char *text, int class_id,
                                          int method_id);

/* The next frame; fails when none comes in time. */
amqp_frame_t next_frame(amqp_connection_state_t connection);
/* The next frame, which must be this method; returns its decoded fields. */
void *next_method(amqp_connection_state_t connection, amqp_method_number_t method);

/* An exclusive queue with a name of the broker's; the name lives as long as the process. */
amqp_bytes_t declare_queue(amqp_connection_state_t connection, amqp_table_t arguments);
void publish(amqp_connection_state_t connection, const char *exchange, amqp_bytes_t routing_key,
             const amqp_basic_properties_t *properties, amqp_bytes_t body);
/* Takes the next message of the queue, waiting for it if need be. */
amqp_message_t await_message(amqp_connection_state_t connection, amqp_bytes_t queue);
/* The number of ready messages. */
uint32_t ready_messages(amqp_connection_state_t connection, amqp_bytes_t queue);
/* Waits until the queue has this number: only a confirm tells that a message is in its queue. */
void await_ready_messages(amqp_connection_state_t connection, amqp_bytes_t queue, uint32_t count);

bool bytes_equal(amqp_bytes_t bytes, const char *text);
/* A body of this size whose content depends on the size and the position. */
amqp_bytes_t patterned_body(size_t size);
amqp_table_t one_argument(const char *name, int32_t value);
amqp_table_entry_t text_entry(const char *key, const char *value);
double seconds_now(void);

#endif
