package clients

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// In these tables {name} stands for a name of the test's own.
type refusal struct {
	what   string
	code   int
	reason string
	action func(s *session, channel *amqp.Channel, name string) error
}

// refuse checks that each action makes the broker close its channel, while the connection goes on.
func refuse(t *testing.T, refusals []refusal) {
	for _, each := range refusals {
		t.Run(each.what, func(t *testing.T) {
			s := newSession(t)
			channel, name := s.channel(), s.name("it")
			reason := strings.ReplaceAll(each.reason, "{name}", name)
			s.refused(channel, each.code, reason, func() error { return each.action(s, channel, name) })
			s.must(s.channel().Close())
		})
	}
}

func declare(channel *amqp.Channel, name string, arguments amqp.Table) error {
	_, err := channel.QueueDeclare(name, true, false, false, false, arguments)
	return err
}

func send(channel *amqp.Channel, exchange, key string, message amqp.Publishing) error {
	return channel.PublishWithContext(context.Background(), exchange, key, false, false, message)
}

func TestNotFound(t *testing.T) {
	const noQueue, noExchange = "NOT_FOUND - no queue '{name}' in vhost '/'", "NOT_FOUND - no exchange '{name}' in vhost '/'"
	refuse(t, []refusal{
		{"passive queue", 404, noQueue, func(_ *session, ch *amqp.Channel, name string) error {
			_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		}},
		{"consume", 404, noQueue, func(_ *session, ch *amqp.Channel, name string) error {
			_, err := ch.Consume(name, "", true, false, false, false, nil)
			return err
		}},
		{"get", 404, noQueue, func(_ *session, ch *amqp.Channel, name string) error {
			_, _, err := ch.Get(name, true)
			return err
		}},
		{"purge", 404, noQueue, func(_ *session, ch *amqp.Channel, name string) error {
			_, err := ch.QueuePurge(name, false)
			return err
		}},
		{"bind queue", 404, noQueue, func(_ *session, ch *amqp.Channel, name string) error {
			return ch.QueueBind(name, "", "amq.direct", false, nil)
		}},
		{"passive exchange", 404, noExchange, func(_ *session, ch *amqp.Channel, name string) error {
			return ch.ExchangeDeclarePassive(name, "direct", true, false, false, false, nil)
		}},
		{"publish", 404, noExchange, func(_ *session, ch *amqp.Channel, name string) error {
			return send(ch, name, "", text("x"))
		}},
	})
}

func TestPreconditionFailed(t *testing.T) {
	const inequivalent = "PRECONDITION_FAILED - inequivalent arg "
	refuse(t, []refusal{
		{"changed argument", 406, inequivalent + "'x-max-length' for queue '{name}' in vhost '/': received '20' but current is '10'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.queue("it", amqp.Table{"x-max-length": int32(10)})
				return declare(ch, name, amqp.Table{"x-max-length": int32(20)})
			}},
		{"added argument", 406, inequivalent + "'x-expires' for queue '{name}' in vhost '/': received the value '60000' of type 'signedint' but current is none",
			func(s *session, ch *amqp.Channel, name string) error {
				s.queue("it", nil)
				return declare(ch, name, amqp.Table{"x-expires": int32(60000)})
			}},
		{"missing argument", 406, inequivalent + "'x-message-ttl' for queue '{name}' in vhost '/': received none but current is the value '60000' of type 'long'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.queue("it", amqp.Table{"x-message-ttl": int64(60000)})
				return declare(ch, name, nil)
			}},
		{"auto-delete", 406, inequivalent + "'auto_delete' for queue '{name}' in vhost '/': received 'true' but current is 'false'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.queue("it", nil)
				_, err := ch.QueueDeclare(name, true, true, false, false, nil)
				return err
			}},
		{"exchange type", 406, inequivalent + "'type' for exchange '{name}' in vhost '/': received 'topic' but current is 'fanout'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.exchange("it", "fanout", nil)
				return ch.ExchangeDeclare(name, "topic", true, false, false, false, nil)
			}},
		{"exchange durability", 406, inequivalent + "'durable' for exchange '{name}' in vhost '/': received 'false' but current is 'true'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.exchange("it", "fanout", nil)
				return ch.ExchangeDeclare(name, "fanout", false, false, false, false, nil)
			}},
		{"unknown delivery tag", 406, "PRECONDITION_FAILED - unknown delivery tag 7",
			func(_ *session, ch *amqp.Channel, _ string) error { return ch.Ack(7, false) }},
		{"unknown delivery tag, multiple", 406, "PRECONDITION_FAILED - unknown delivery tag 7",
			func(_ *session, ch *amqp.Channel, _ string) error { return ch.Nack(7, true, true) }},
		{"queue in use", 406, "PRECONDITION_FAILED - queue '{name}' in vhost '/' in use",
			func(s *session, ch *amqp.Channel, name string) error {
				s.consume(s.channel(), s.queue("it", nil), "", nil)
				_, err := ch.QueueDelete(name, true, false, false)
				return err
			}},
		{"queue not empty", 406, "PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty",
			func(s *session, ch *amqp.Channel, name string) error {
				s.fill(s.confirmChannel(), s.queue("it", nil), "x")
				_, err := ch.QueueDelete(name, false, true, false)
				return err
			}},
		{"user id", 406, "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
			func(_ *session, ch *amqp.Channel, _ string) error {
				return send(ch, "", "any", amqp.Publishing{UserId: "somebody"})
			}},
	})
}

func TestAccessRefused(t *testing.T) {
	const defaultExchange = "ACCESS_REFUSED - operation not permitted on the default exchange"
	refuse(t, []refusal{
		{"reserved queue name", 403, "ACCESS_REFUSED - queue name 'amq.{name}' contains reserved prefix 'amq.*'",
			func(_ *session, ch *amqp.Channel, name string) error { return declare(ch, "amq."+name, nil) }},
		{"reserved exchange name", 403, "ACCESS_REFUSED - exchange name 'amq.{name}' contains reserved prefix 'amq.*'",
			func(_ *session, ch *amqp.Channel, name string) error {
				return ch.ExchangeDeclare("amq."+name, "direct", true, false, false, false, nil)
			}},
		{"bind to the default exchange", 403, defaultExchange,
			func(s *session, ch *amqp.Channel, name string) error {
				return ch.QueueBind(s.queue("it", nil), "key", "", false, nil)
			}},
		{"delete the default exchange", 403, defaultExchange,
			func(_ *session, ch *amqp.Channel, _ string) error { return ch.ExchangeDelete("", false, false) }},
		{"delete a predeclared exchange", 403, "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
			func(_ *session, ch *amqp.Channel, _ string) error {
				return ch.ExchangeDelete("amq.topic", false, false)
			}},
		{"publish to an internal exchange", 403, "ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'",
			func(s *session, ch *amqp.Channel, name string) error {
				s.must(ch.ExchangeDeclare(name, "fanout", true, false, true, false, nil))
				s.cleanUp(func(cleaner *amqp.Channel) error { return cleaner.ExchangeDelete(name, false, false) })
				return send(ch, name, "", text("x"))
			}},
	})
}

func TestExclusiveQueueOfAnotherConnection(t *testing.T) {
	s := newSession(t)
	declared, err := s.channel().QueueDeclare(s.name("locked"), false, false, true, false, nil)
	s.must(err)
	reason := "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + declared.Name + "' in vhost '/'. It could be originally " +
		"declared on another connection or the exclusive property value does not match that of the original declaration."
	other := s.connect(amqp.Config{})
	for _, attempt := range []func(*amqp.Channel) error{
		func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(declared.Name, false, false, true, false, nil)
			return err
		},
		func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(declared.Name, false, false, true, false, nil)
			return err
		},
		func(ch *amqp.Channel) error {
			_, err := ch.Consume(declared.Name, "", true, false, false, false, nil)
			return err
		},
		func(ch *amqp.Channel) error { _, _, err := ch.Get(declared.Name, true); return err },
		func(ch *amqp.Channel) error { _, err := ch.QueueDelete(declared.Name, false, false, false); return err },
	} {
		channel := s.channelOn(other)
		s.refused(channel, 405, reason, func() error { return attempt(channel) })
	}
}

func TestUnknownVirtualHost(t *testing.T) {
	t.Parallel()
	_, err := amqp.DialConfig(brokerURL, amqp.Config{Vhost: "no-such-vhost"})
	assertReply(t, err, 530, "NOT_ALLOWED - vhost no-such-vhost not found")
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	address, err := url.Parse(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword("guest", "wrong")
	// This client does not advertise authentication_failure_close, so the broker closes the socket without a word.
	start := time.Now()
	if _, err = amqp.Dial(address.String()); !errors.Is(err, amqp.ErrCredentials) {
		t.Fatalf("got %v, expected %v", err, amqp.ErrCredentials)
	}
	if elapsed := time.Since(start); elapsed > soon {
		t.Fatalf("the refusal took %s", elapsed)
	}
}

// connectionRefused runs action on a connection of its own and checks what the broker closes that with.
func connectionRefused(s *session, code int, reason string, action func(*amqp.Channel) error) {
	s.Helper()
	connection := s.connect(amqp.Config{})
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	_ = action(s.channelOn(connection))
	assertReply(s.T, receive(s.T, closed, "the connection to be closed"), code, reason)
	eventually(s.T, "the connection is closed", connection.IsClosed)
}

func TestConnectionErrors(t *testing.T) {
	s := newSession(t)
	queue := s.queue("q", nil)
	connectionRefused(s, 540, "NOT_IMPLEMENTED - immediate=true", func(ch *amqp.Channel) error {
		return ch.PublishWithContext(context.Background(), "", queue, false, true, text("x"))
	})
	connectionRefused(s, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (100)", func(ch *amqp.Channel) error {
		return ch.Qos(0, 100, false)
	})
	connectionRefused(s, 540, "NOT_IMPLEMENTED - requeue=false", func(ch *amqp.Channel) error {
		return ch.Recover(false)
	})
	connectionRefused(s, 540, "NOT_IMPLEMENTED - active=false", func(ch *amqp.Channel) error {
		return ch.Flow(false)
	})
	connectionRefused(s, 530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", func(ch *amqp.Channel) error {
		s.consume(ch, queue, "tag", nil)
		_, err := ch.Consume(queue, "tag", false, false, false, false, nil)
		return err
	})
}

func TestAnErrorOnOneChannelLeavesTheOthers(t *testing.T) {
	s := newSession(t)
	queue := s.queue("healthy", nil)
	healthy, failing := s.confirmChannel(), s.channel()
	deliveries := s.consumeAutoAck(healthy, queue)
	reply := s.closeReason(failing, func() error {
		_, err := failing.QueueDeclarePassive(s.name("absent"), true, false, false, false, nil)
		return err
	})
	equal(t, reply.Code, 404)
	s.fill(healthy, queue, "x")
	equal(t, string(s.take(deliveries).Body), "x")
	s.must(s.channel().Close())
}
