package clients

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// graveyard is a queue whose dead letters arrive on deliveries.
type graveyard struct {
	*session
	channel    *amqp.Channel
	exchange   string
	queue      string
	deliveries <-chan amqp.Delivery
}

func newGraveyard(t *testing.T, arguments amqp.Table) *graveyard {
	t.Helper()
	s := newSession(t)
	exchange, dead := s.exchange("dlx", "fanout", nil), s.queue("dead", nil)
	s.bind(dead, "", exchange, nil)
	all := amqp.Table{"x-dead-letter-exchange": exchange}
	for key, value := range arguments {
		all[key] = value
	}
	return &graveyard{
		session:    s,
		channel:    s.confirmChannel(),
		exchange:   exchange,
		queue:      s.queue("source", all),
		deliveries: s.consumeAutoAck(s.channel(), dead),
	}
}

func (g *graveyard) send(message amqp.Publishing) bool {
	g.Helper()
	return g.publish(g.channel, "", g.queue, message)
}

// assertDeath checks the whole history of a message that died once: every field and the type of each.
func assertDeath(t *testing.T, headers amqp.Table, expected amqp.Table) {
	t.Helper()
	deaths, isArray := headers["x-death"].([]any)
	if !isArray || len(deaths) != 1 {
		t.Fatalf("expected one death, got %#v", headers["x-death"])
	}
	death := deaths[0].(amqp.Table)
	diedAt, isTime := death["time"].(time.Time)
	if age := time.Since(diedAt); !isTime || age < -30*time.Second || age > 30*time.Second {
		t.Fatalf("not the time of the death: %#v", death["time"])
	}
	delete(death, "time")
	equal(t, death, expected)
	for _, field := range []string{"queue", "reason", "exchange"} {
		equal(t, headers["x-first-death-"+field], expected[field])
		equal(t, headers["x-last-death-"+field], expected[field])
	}
}

func (g *graveyard) death(reason string) amqp.Table {
	return amqp.Table{
		"count": int64(1), "reason": reason, "queue": g.queue, "exchange": "", "routing-keys": []any{g.queue},
	}
}

func TestQueueTTLDeadLetters(t *testing.T) {
	g := newGraveyard(t, amqp.Table{"x-message-ttl": int32(100)})
	message := amqp.Publishing{Headers: amqp.Table{"own": "kept"}, Priority: 3, DeliveryMode: amqp.Persistent, Body: []byte("x")}
	equal(t, g.send(message), true)
	dead := g.take(g.deliveries)
	assertDeath(t, dead.Headers, g.death("expired"))
	equal(t, []any{string(dead.Body), dead.Exchange, dead.RoutingKey, dead.Redelivered}, []any{"x", g.exchange, g.queue, false})
	equal(t, []any{dead.Headers["own"], dead.Priority, dead.DeliveryMode}, []any{"kept", uint8(3), amqp.Persistent})
}

func TestMessageTTLMovesToTheHistory(t *testing.T) {
	g := newGraveyard(t, nil)
	equal(t, g.send(amqp.Publishing{Expiration: "100", Body: []byte("x")}), true)
	dead := g.take(g.deliveries)
	expected := g.death("expired")
	expected["original-expiration"] = "100"
	assertDeath(t, dead.Headers, expected)
	equal(t, dead.Expiration, "")
}

func TestRejectedMessagesAreDeadLettered(t *testing.T) {
	g := newGraveyard(t, amqp.Table{"x-dead-letter-routing-key": "grave"})
	g.bind(g.queue, g.queue, "amq.direct", nil)
	equal(t, g.publish(g.channel, "amq.direct", g.queue, text("x")), true)
	g.must(g.get(g.channel, g.queue, false).Reject(false))
	dead := g.take(g.deliveries)
	expected := g.death("rejected")
	expected["exchange"] = "amq.direct"
	assertDeath(t, dead.Headers, expected)
	equal(t, []any{dead.Exchange, dead.RoutingKey}, []any{g.exchange, "grave"})
}

func TestMaxLengthDeadLettersTheOldest(t *testing.T) {
	g := newGraveyard(t, amqp.Table{"x-max-length": int32(2)})
	g.fill(g.channel, g.queue, numbers(4)...)
	dead := g.take(g.deliveries)
	assertDeath(t, dead.Headers, g.death("maxlen"))
	equal(t, string(dead.Body), "1")
	equal(t, string(g.take(g.deliveries).Body), "2")
	equal(t, g.drain(g.queue), []string{"3", "4"})
}

func TestMaxLengthBytesDeadLettersAsManyAsNeeded(t *testing.T) {
	g := newGraveyard(t, amqp.Table{"x-max-length-bytes": int32(10)})
	g.fill(g.channel, g.queue, "aaaa", "bbbb", "cccccccc")
	bodies, dead := g.takeBodies(g.deliveries, 2)
	equal(t, bodies, []string{"aaaa", "bbbb"})
	assertDeath(t, dead.Headers, g.death("maxlen"))
	equal(t, g.drain(g.queue), []string{"cccccccc"})
}

func TestRejectPublishDeadLettering(t *testing.T) {
	g := newGraveyard(t, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish-dlx"})
	equal(t, g.send(text("1")), true)
	equal(t, g.send(text("2")), false)
	dead := g.take(g.deliveries)
	equal(t, string(dead.Body), "2")
	assertDeath(t, dead.Headers, g.death("maxlen"))
}

func TestRepeatedDeathsAreCountedNewestFirst(t *testing.T) {
	s := newSession(t)
	work, retry := s.name("work"), s.name("retry")
	s.queue("work", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry})
	s.queue("retry", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": int32(20)})
	deliveries := s.consume(s.channel(), work, "", nil)
	s.fill(s.confirmChannel(), work, "x")
	s.must(s.take(deliveries).Nack(false, false))
	s.must(s.take(deliveries).Nack(false, false))
	delivery := s.take(deliveries)
	s.must(delivery.Ack(false))

	deaths := delivery.Headers["x-death"].([]any)
	equal(t, len(deaths), 2)
	for index, expected := range []amqp.Table{
		{"count": int64(2), "reason": "expired", "queue": retry, "exchange": "", "routing-keys": []any{retry}},
		{"count": int64(2), "reason": "rejected", "queue": work, "exchange": "", "routing-keys": []any{work}},
	} {
		death := deaths[index].(amqp.Table)
		delete(death, "time")
		equal(t, death, expected)
	}
	equal(t, delivery.Headers["x-first-death-reason"], "rejected")
	equal(t, delivery.Headers["x-first-death-queue"], work)
	equal(t, delivery.Headers["x-last-death-reason"], "expired")
	equal(t, delivery.Headers["x-last-death-queue"], retry)
}
