package clients

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestMandatoryReturnPrecedesTheConfirm(t *testing.T) {
	s := newSession(t)
	channel, key := s.confirmChannel(), s.name("nowhere")
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	message := amqp.Publishing{MessageId: "m1", Headers: amqp.Table{"a": int32(1)}, Body: []byte("lost")}
	s.must(channel.PublishWithContext(context.Background(), "amq.direct", key, true, false, message))

	equal(t, receive(t, confirms, "a confirm"), amqp.Confirmation{DeliveryTag: 1, Ack: true})
	select {
	case returned := <-returns:
		equal(t, []any{returned.ReplyCode, returned.ReplyText, returned.Exchange, returned.RoutingKey},
			[]any{uint16(312), "NO_ROUTE", "amq.direct", key})
		equal(t, []any{returned.MessageId, returned.Headers, string(returned.Body)}, []any{"m1", message.Headers, "lost"})
	default:
		t.Fatal("the message was confirmed before it was returned")
	}
}

func TestUnroutableMessagesAreConfirmed(t *testing.T) {
	s := newSession(t)
	channel := s.confirmChannel()
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	for _, exchange := range []string{"", "amq.direct", "amq.headers"} {
		equal(t, s.publish(channel, exchange, s.name("nowhere"), text("x")), true)
	}
	idle(t, returns)
}

func TestRejectPublishRefusesMessages(t *testing.T) {
	s := newSession(t)
	channel := s.confirmChannel()
	queue := s.queue("full", amqp.Table{"x-max-length": int32(2), "x-overflow": "reject-publish"})
	outcomes := []bool{}
	for _, body := range numbers(4) {
		outcomes = append(outcomes, s.publish(channel, "", queue, text(body)))
	}
	equal(t, outcomes, []bool{true, true, false, false})
	equal(t, s.drain(queue), []string{"1", "2"})
	equal(t, s.publish(channel, "", queue, text("5")), true)
}

func TestConfirmsAreNumberedFromConfirmSelect(t *testing.T) {
	s := newSession(t)
	channel, queue := s.channel(), s.queue("numbered", nil)
	s.must(channel.PublishWithContext(context.Background(), "", queue, false, false, text("before")))
	s.must(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 10))
	for _, body := range numbers(10) {
		s.must(channel.PublishWithContext(context.Background(), "", queue, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)}))
	}
	for tag := uint64(1); tag <= 10; tag++ {
		equal(t, receive(t, confirms, "a confirm"), amqp.Confirmation{DeliveryTag: tag, Ack: true})
	}
	equal(t, s.drain(queue), append([]string{"before"}, numbers(10)...))
}

const (
	concurrentPublishers = 100
	messagesPerPublisher = 100
)

func TestConcurrentPublishersLoseNothingAndKeepOrder(t *testing.T) {
	s := newSession(t)
	queue := s.queue("many", nil)
	consumer := s.channelOn(s.connect(amqp.Config{}))
	s.must(consumer.Qos(500, 0, false))
	deliveries := s.consume(consumer, queue, "", nil)

	connections := []*amqp.Connection{}
	for count := 0; count < 10; count++ {
		connections = append(connections, s.connect(amqp.Config{}))
	}
	failures := make(chan error, concurrentPublishers)
	var publishers sync.WaitGroup
	for publisher := 0; publisher < concurrentPublishers; publisher++ {
		publishers.Add(1)
		go func(publisher int) {
			defer publishers.Done()
			if err := publishNumbers(connections[publisher%10], queue, int32(publisher)); err != nil {
				failures <- fmt.Errorf("publisher %d: %w", publisher, err)
			}
		}(publisher)
	}

	var next [concurrentPublishers]int
	for count := 0; count < concurrentPublishers*messagesPerPublisher; count++ {
		delivery := s.take(deliveries)
		publisher := delivery.Headers["publisher"].(int32)
		next[publisher]++
		if string(delivery.Body) != strconv.Itoa(next[publisher]) {
			t.Fatalf("publisher %d: got %s, expected %d", publisher, delivery.Body, next[publisher])
		}
		if count%50 == 49 {
			s.must(delivery.Ack(true))
		}
	}
	publishers.Wait()
	select {
	case err := <-failures:
		t.Fatal(err)
	default:
	}
	equal(t, s.ready(queue), 0)
}

// publishNumbers publishes 1..messagesPerPublisher on a channel of its own and waits for all confirms.
func publishNumbers(connection *amqp.Connection, queue string, publisher int32) error {
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	defer channel.Close()
	if err := channel.Confirm(false); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	confirmations := []*amqp.DeferredConfirmation{}
	for _, body := range numbers(messagesPerPublisher) {
		message := amqp.Publishing{
			Headers:      amqp.Table{"publisher": publisher},
			DeliveryMode: uint8(1 + publisher%2),
			Body:         []byte(body),
		}
		confirmation, err := channel.PublishWithDeferredConfirm("", queue, false, false, message)
		if err != nil {
			return err
		}
		confirmations = append(confirmations, confirmation)
	}
	for _, confirmation := range confirmations {
		if acked, err := confirmation.WaitContext(ctx); err != nil || !acked {
			return fmt.Errorf("message %d: confirmed %t, %w", confirmation.DeliveryTag, acked, err)
		}
	}
	return nil
}
