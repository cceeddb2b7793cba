package clients

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const replyTo = "amq.rabbitmq.reply-to"

func TestPriorities(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("priority", amqp.Table{"x-max-priority": int32(5)})
	for _, message := range []struct {
		priority uint8
		body     string
	}{{1, "one"}, {5, "five"}, {0, "none"}, {3, "three"}, {9, "nine"}, {5, "five again"}} {
		equal(t, s.publish(channel, "", queue, amqp.Publishing{Priority: message.priority, Body: []byte(message.body)}), true)
	}
	equal(t, s.drain(queue), []string{"five", "nine", "five again", "three", "one", "none"})
}

func TestClientCancel(t *testing.T) {
	s := newSession(t)
	publisher, queue, channel := s.confirmChannel(), s.queue("cancel", nil), s.channel()
	deliveries := s.consume(channel, queue, "worker", nil)
	s.fill(publisher, queue, "1")
	held := s.take(deliveries)
	s.must(channel.Cancel("worker", false))
	s.fill(publisher, queue, "2")
	equal(t, s.ready(queue), 1)
	if _, open := <-deliveries; open {
		t.Fatal("a delivery after the consumer was cancelled")
	}
	s.must(held.Ack(false))
	s.must(channel.Cancel("worker", false))
	s.must(channel.Close())
	equal(t, s.drain(queue), []string{"2"})
}

func TestServerCancelWhenTheQueueIsDeleted(t *testing.T) {
	s := newSession(t)
	queue, channel := s.queue("deleted", nil), s.channel()
	cancelled := channel.NotifyCancel(make(chan string, 1))
	deliveries := s.consume(channel, queue, "worker", nil)
	_, err := s.channel().QueueDelete(queue, false, false, false)
	s.must(err)
	equal(t, receive(t, cancelled, "a cancellation"), "worker")
	select {
	case _, open := <-deliveries:
		equal(t, open, false)
	case <-time.After(soon):
		t.Fatal("the deliveries were not ended")
	}
	s.queue("deleted", nil)
	s.consume(channel, queue, "worker", nil)
}

func TestConsumerPriorities(t *testing.T) {
	s := newSession(t)
	publisher, queue, low, high := s.confirmChannel(), s.queue("preferred", nil), s.channel(), s.channel()
	s.must(low.Qos(2, 0, false))
	s.must(high.Qos(2, 0, false))
	lowDeliveries := s.consume(low, queue, "", amqp.Table{"x-priority": int32(-1)})
	highDeliveries := s.consume(high, queue, "", amqp.Table{"x-priority": int32(10)})
	s.fill(publisher, queue, "1", "2")
	_, last := s.takeBodies(highDeliveries, 2)
	s.fill(publisher, queue, "3")
	equal(t, string(s.take(lowDeliveries).Body), "3")
	s.must(last.Ack(true))
	_, err := high.QueueDeclarePassive(queue, true, false, false, false, nil)
	s.must(err)
	s.fill(publisher, queue, "4")
	equal(t, string(s.take(highDeliveries).Body), "4")
	idle(t, lowDeliveries)
}

func TestSingleActiveConsumer(t *testing.T) {
	s := newSession(t)
	publisher, first, second := s.confirmChannel(), s.channel(), s.channel()
	queue := s.queue("single", amqp.Table{"x-single-active-consumer": true})
	firstDeliveries, secondDeliveries := s.consume(first, queue, "", nil), s.consume(second, queue, "", nil)
	s.fill(publisher, queue, numbers(3)...)
	s.must(s.take(firstDeliveries).Ack(false))
	s.takeBodies(firstDeliveries, 2)
	idle(t, secondDeliveries)
	s.must(first.Close())
	bodies, _ := s.takeBodies(secondDeliveries, 2)
	equal(t, bodies, []string{"2", "3"})
}

func TestExclusiveConsumer(t *testing.T) {
	s := newSession(t)
	queue, owner, other := s.queue("exclusive", nil), s.channel(), s.channel()
	_, err := owner.Consume(queue, "owner", false, true, false, false, nil)
	s.must(err)
	s.refused(other, 403, "ACCESS_REFUSED - queue '"+queue+"' in vhost '/' in exclusive use", func() error {
		_, err := other.Consume(queue, "", false, false, false, false, nil)
		return err
	})
	s.must(owner.Cancel("owner", false))
	s.consume(s.channel(), queue, "", nil)
}

func TestDirectReplyTo(t *testing.T) {
	s := newSession(t)
	queue, server := s.queue("requests", nil), s.channelOn(s.connect(amqp.Config{}))
	requests := s.consume(server, queue, "", nil)
	go func() {
		for request := range requests {
			answer := amqp.Publishing{CorrelationId: request.CorrelationId, Type: request.ReplyTo, Body: []byte(strings.ToUpper(string(request.Body)))}
			_ = server.PublishWithContext(context.Background(), "", request.ReplyTo, false, false, answer)
			_ = request.Ack(false)
		}
	}()
	client := s.channel()
	replies := s.consumeAutoAck(client, replyTo)
	for _, word := range []string{"one", "two", "three"} {
		request := amqp.Publishing{ReplyTo: replyTo, CorrelationId: word, Body: []byte(word)}
		s.must(client.PublishWithContext(context.Background(), "", queue, false, false, request))
		reply := s.take(replies)
		equal(t, []any{string(reply.Body), reply.CorrelationId, reply.Exchange}, []any{strings.ToUpper(word), word, ""})
		equal(t, strings.HasPrefix(reply.Type, replyTo+"."), true)
	}
}

func TestDirectReplyToErrors(t *testing.T) {
	s := newSession(t)
	channel := s.channel()
	s.refused(channel, 406, "PRECONDITION_FAILED - fast reply consumer does not exist", func() error {
		return channel.PublishWithContext(context.Background(), "", "any", false, false, amqp.Publishing{ReplyTo: replyTo})
	})
	channel = s.channel()
	s.refused(channel, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", func() error {
		_, err := channel.Consume(replyTo, "", false, false, false, false, nil)
		return err
	})
}

func TestExclusiveQueueLifeCycle(t *testing.T) {
	s := newSession(t)
	owner := s.connect(amqp.Config{})
	channel := s.channelOn(owner)
	declared, err := channel.QueueDeclare("", false, false, true, false, nil)
	s.must(err)
	if !regexp.MustCompile(`^amq\.gen-[A-Za-z0-9_-]{22}$`).MatchString(declared.Name) {
		t.Fatalf("not a generated name: %s", declared.Name)
	}
	s.must(channel.Close())
	_, err = s.channelOn(owner).QueueDeclarePassive(declared.Name, false, false, true, false, nil)
	s.must(err)
	s.must(owner.Close())
	equal(t, s.exists(declared.Name), false)
}

func TestAutoDeleteQueueLifeCycle(t *testing.T) {
	s := newSession(t)
	channel, queue := s.channel(), s.name("auto")
	_, err := channel.QueueDeclare(queue, true, true, false, false, nil)
	s.must(err)
	_, _, err = channel.Get(queue, true)
	s.must(err)
	s.consume(channel, queue, "one", nil)
	second := s.channel()
	s.consume(second, queue, "two", nil)
	s.must(channel.Cancel("one", false))
	equal(t, s.exists(queue), true)
	s.must(second.Close())
	eventually(t, "the queue is gone", func() bool { return !s.exists(queue) })
}

// exists reports whether the queue does.
func (s *session) exists(queue string) bool {
	s.Helper()
	channel := s.channel()
	_, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
	if err == nil {
		s.must(channel.Close())
		return true
	}
	assertReply(s.T, err, 404, "NOT_FOUND - no queue '"+queue+"' in vhost '/'")
	return false
}
