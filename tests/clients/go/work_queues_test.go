package clients

import (
	"sort"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestFairDispatchWithPrefetchOne(t *testing.T) {
	s := newSession(t)
	publisher, queue := s.confirmChannel(), s.queue("work", nil)
	slow, fast := s.channel(), s.channel()
	s.must(slow.Qos(1, 0, false))
	s.must(fast.Qos(1, 0, false))
	slowDeliveries := s.consume(slow, queue, "", nil)
	fastDeliveries := s.consume(fast, queue, "", nil)

	s.fill(publisher, queue, numbers(20)...)
	held := s.take(slowDeliveries)
	bodies := []string{string(held.Body)}
	for len(bodies) < 20 {
		delivery := s.take(fastDeliveries)
		bodies = append(bodies, string(delivery.Body))
		s.must(delivery.Ack(false))
	}
	idle(t, slowDeliveries)
	expected := numbers(20)
	sort.Strings(bodies)
	sort.Strings(expected)
	equal(t, bodies, expected)
	s.must(held.Ack(false))
}

func TestMessagesAreDealtOutInTurn(t *testing.T) {
	s := newSession(t)
	publisher, queue := s.confirmChannel(), s.queue("turns", nil)
	first, second := s.consumeAutoAck(s.channel(), queue), s.consumeAutoAck(s.channel(), queue)
	s.fill(publisher, queue, numbers(20)...)
	for _, deliveries := range []<-chan amqp.Delivery{first, second} {
		for count := 0; count < 10; count++ {
			s.take(deliveries)
		}
		idle(t, deliveries)
	}
}

func TestGet(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("get", nil)
	_, found, err := channel.Get(queue, true)
	s.must(err)
	equal(t, found, false)

	s.fill(channel, queue, "a", "b")
	first := s.get(channel, queue, false)
	equal(t, string(first.Body), "a")
	equal(t, []any{first.DeliveryTag, first.Redelivered, first.Exchange, first.RoutingKey, first.MessageCount},
		[]any{uint64(1), false, "", queue, uint32(1)})
	second := s.get(channel, queue, true)
	equal(t, []any{second.DeliveryTag, second.MessageCount}, []any{uint64(2), uint32(0)})
}

func TestRequeuedMessagesReturnToTheirPlace(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("requeue", nil)
	s.fill(channel, queue, numbers(5)...)
	s.get(channel, queue, false)
	second := s.get(channel, queue, false)
	s.get(channel, queue, false)

	s.must(second.Nack(false, true))
	again := s.get(channel, queue, false)
	equal(t, string(again.Body), "2")
	equal(t, again.Redelivered, true)
	s.must(again.Nack(true, true))
	for index, body := range numbers(5) {
		delivery := s.get(channel, queue, false)
		equal(t, string(delivery.Body), body)
		equal(t, delivery.Redelivered, index < 3)
	}
}

func TestAConsumerThatRefusesEverythingGetsItAgainInOrder(t *testing.T) {
	s := newSession(t)
	queue, channel := s.queue("refuse", nil), s.channel()
	s.must(channel.Qos(10, 0, false))
	deliveries := s.consume(channel, queue, "", nil)
	s.fill(s.confirmChannel(), queue, numbers(10)...)
	bodies, last := s.takeBodies(deliveries, 10)
	equal(t, bodies, numbers(10))
	s.must(last.Nack(true, true))
	for _, body := range numbers(10) {
		delivery := s.take(deliveries)
		equal(t, string(delivery.Body), body)
		equal(t, delivery.Redelivered, true)
		s.must(delivery.Ack(false))
	}
}

func TestRejectRequeuesOrDropsOne(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("reject", nil)
	s.fill(channel, queue, "keep", "drop")
	keep, drop := s.get(channel, queue, false), s.get(channel, queue, false)
	s.must(keep.Reject(true))
	s.must(drop.Reject(false))
	again := s.get(channel, queue, true)
	equal(t, string(again.Body), "keep")
	equal(t, again.MessageCount, uint32(0))
}

func TestRecoverRequeuesWhatIsOutstanding(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("recover", nil)
	s.fill(channel, queue, numbers(5)...)
	for count := 1; count <= 5; count++ {
		if delivery := s.get(channel, queue, false); count == 3 {
			s.must(delivery.Ack(true))
		}
	}
	s.must(channel.Recover(true))
	equal(t, s.drain(queue), []string{"4", "5"})
}

func TestClosingRequeuesWhatIsOutstanding(t *testing.T) {
	s := newSession(t)
	queue := s.queue("unacked", nil)
	s.fill(s.confirmChannel(), queue, numbers(3)...)

	channel := s.channel()
	bodies, _ := s.takeBodies(s.consume(channel, queue, "", nil), 3)
	equal(t, bodies, numbers(3))
	s.must(channel.Close())

	connection := s.connect(amqp.Config{})
	deliveries := s.consume(s.channelOn(connection), queue, "", nil)
	for _, body := range numbers(3) {
		delivery := s.take(deliveries)
		equal(t, string(delivery.Body), body)
		equal(t, delivery.Redelivered, true)
	}
	s.must(connection.Close())
	eventually(t, "the messages are ready again", func() bool { return s.ready(queue) == 3 })
}

func TestPurgeAndDeleteCountReadyMessages(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("counts", nil)
	s.fill(channel, queue, numbers(6)...)
	held := s.get(channel, queue, false)
	purged, err := channel.QueuePurge(queue, false)
	s.must(err)
	equal(t, purged, 5)
	s.must(held.Nack(false, true))
	s.fill(channel, queue, numbers(2)...)
	for _, expected := range []int{3, 0} {
		deleted, err := channel.QueueDelete(queue, false, false, false)
		s.must(err)
		equal(t, deleted, expected)
	}
}

func TestGlobalPrefetchIsSharedByTheConsumersOfAChannel(t *testing.T) {
	if foreignBroker {
		t.Skip("this broker may treat global prefetch as per consumer")
	}
	s := newSession(t)
	publisher, one, two, channel := s.confirmChannel(), s.queue("one", nil), s.queue("two", nil), s.channel()
	s.must(channel.Qos(2, 0, true))
	first, second := s.consume(channel, one, "", nil), s.consume(channel, two, "", nil)
	s.fill(publisher, one, "a", "b", "c")
	_, last := s.takeBodies(first, 2)
	s.fill(publisher, two, "d")
	equal(t, s.ready(two), 1)
	s.must(last.Ack(true))
	equal(t, string(s.take(second).Body), "d")
	equal(t, string(s.take(first).Body), "c")
}

func TestMethodsWithoutReply(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.name("nowait")
	_, err := channel.QueueDeclare(queue, false, false, true, true, nil)
	s.must(err)
	s.must(channel.QueueBind(queue, queue, "amq.direct", true, nil))
	deliveries, err := channel.Consume(queue, "tag", true, false, false, true, nil)
	s.must(err)
	equal(t, s.publish(channel, "amq.direct", queue, text("x")), true)
	equal(t, string(s.take(deliveries).Body), "x")
	s.must(channel.Cancel("tag", true))
	_, err = channel.QueuePurge(queue, true)
	s.must(err)
	_, err = channel.QueueDelete(queue, false, false, true)
	s.must(err)
	s.refused(channel, 404, "NOT_FOUND - no queue '"+queue+"' in vhost '/'", func() error {
		_, err := channel.QueueDeclarePassive(queue, false, false, true, false, nil)
		return err
	})
}
