package clients

import (
	"fmt"
	"sort"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestPublishSubscribe(t *testing.T) {
	s := newSession(t)
	channel, exchange := s.confirmChannel(), s.exchange("news", "fanout", nil)
	subscribers := []<-chan amqp.Delivery{}
	for count := 0; count < 3; count++ {
		queue, err := channel.QueueDeclare("", false, false, true, false, nil)
		s.must(err)
		s.must(channel.QueueBind(queue.Name, "", exchange, false, nil))
		subscribers = append(subscribers, s.consumeAutoAck(channel, queue.Name))
	}
	for _, body := range numbers(3) {
		equal(t, s.publish(channel, exchange, "ignored", text(body)), true)
	}
	for _, deliveries := range subscribers {
		bodies, last := s.takeBodies(deliveries, 3)
		equal(t, bodies, numbers(3))
		equal(t, []any{last.Exchange, last.RoutingKey}, []any{exchange, "ignored"})
	}
}

func TestDirectRouting(t *testing.T) {
	s := newSession(t)
	channel, exchange := s.confirmChannel(), s.exchange("logs", "direct", nil)
	errors, all := s.queue("errors", nil), s.queue("all", nil)
	s.bind(errors, "error", exchange, nil)
	for _, key := range []string{"error", "info"} {
		s.bind(all, key, exchange, nil)
	}
	for _, key := range []string{"error", "info", "Error", "debug", ""} {
		equal(t, s.publish(channel, exchange, key, text(key)), true)
	}
	equal(t, s.drain(errors), []string{"error"})
	equal(t, s.drain(all), []string{"error", "info"})
	s.must(channel.QueueUnbind(all, "info", exchange, nil))
	equal(t, s.publish(channel, exchange, "info", text("info")), true)
	equal(t, s.drain(all), []string{})
}

func TestTopicRouting(t *testing.T) {
	s := newSession(t)
	channel, exchange := s.confirmChannel(), s.exchange("topics", "topic", nil)
	keys := []string{"", "a", "a.b", "a.b.c", "b.a", "a..c", "a.", "x.a.y", "quick.orange.rabbit"}
	matches := map[string][]string{
		"#":            keys,
		"*":            {"a"},
		"*.#":          keys[1:],
		"a.*":          {"a.b", "a."},
		"a.#":          {"a", "a.b", "a.b.c", "a..c", "a."},
		"#.a":          {"a", "b.a"},
		"#.a.#":        {"a", "a.b", "a.b.c", "b.a", "a..c", "a.", "x.a.y"},
		"a.*.c":        {"a.b.c", "a..c"},
		"*.orange.*":   {"quick.orange.rabbit"},
		"quick*":       {},
		"*.*.*.*":      {},
		"a.b":          {"a.b"},
		"":             {""},
		"#.b.#.c":      {"a.b.c"},
		"quick.#.*":    {"quick.orange.rabbit"},
		"quick.orange": {},
	}
	queues := map[string]string{}
	for pattern := range matches {
		queues[pattern] = s.queue(fmt.Sprintf("topic-%d", len(queues)), nil)
		s.bind(queues[pattern], pattern, exchange, nil)
	}
	for _, key := range keys {
		equal(t, s.publish(channel, exchange, key, text(key)), true)
	}
	for pattern, queue := range queues {
		actual, expected := s.drain(queue), append([]string{}, matches[pattern]...)
		sort.Strings(actual)
		sort.Strings(expected)
		t.Logf("pattern %q", pattern)
		equal(t, actual, expected)
	}
}

func TestHeadersRouting(t *testing.T) {
	s := newSession(t)
	channel, exchange := s.confirmChannel(), s.exchange("headers", "headers", nil)
	messages := []struct {
		body    string
		headers amqp.Table
	}{
		{"both", amqp.Table{"format": "pdf", "pages": int64(2), "x-origin": "scan"}},
		{"format", amqp.Table{"format": "pdf", "pages": int16(9)}},
		{"origin", amqp.Table{"x-origin": "scan"}},
		{"text", amqp.Table{"format": "pdf", "pages": "2"}},
		{"none", nil},
	}
	bindings := map[string]struct {
		arguments amqp.Table
		bodies    []string
	}{
		"all":          {amqp.Table{"x-match": "all", "format": "pdf", "pages": int32(2), "x-origin": "other"}, []string{"both"}},
		"default":      {amqp.Table{"format": "pdf", "pages": int8(2)}, []string{"both"}},
		"any":          {amqp.Table{"x-match": "any", "format": "pdf", "pages": int32(2), "x-origin": "scan"}, []string{"both", "format", "text"}},
		"all-with-x":   {amqp.Table{"x-match": "all-with-x", "format": "pdf", "x-origin": "scan"}, []string{"both"}},
		"any-with-x":   {amqp.Table{"x-match": "any-with-x", "pages": int32(2), "x-origin": "scan"}, []string{"both", "origin"}},
		"present":      {amqp.Table{"x-match": "all", "pages": nil}, []string{"both", "format", "text"}},
		"double":       {amqp.Table{"x-match": "all", "pages": float64(2)}, []string{}},
		"all nothing":  {amqp.Table{"x-match": "all"}, []string{"both", "format", "origin", "text", "none"}},
		"any nothing":  {amqp.Table{"x-match": "any"}, []string{}},
		"all mismatch": {amqp.Table{"x-match": "all", "format": "pdf", "pages": int32(3)}, []string{}},
	}
	queues := map[string]string{}
	for name, binding := range bindings {
		queues[name] = s.queue(name, nil)
		s.bind(queues[name], "", exchange, binding.arguments)
	}
	for _, message := range messages {
		equal(t, s.publish(channel, exchange, "", amqp.Publishing{Headers: message.headers, Body: []byte(message.body)}), true)
	}
	for name, queue := range queues {
		t.Logf("binding %q", name)
		equal(t, s.drain(queue), bindings[name].bodies)
	}
}

func TestExchangeToExchangeBindings(t *testing.T) {
	s := newSession(t)
	channel := s.confirmChannel()
	source, middle, queue := s.exchange("source", "topic", nil), s.exchange("middle", "fanout", nil), s.queue("end", nil)
	s.must(channel.ExchangeBind(middle, "to.#", source, false, nil))
	s.must(channel.ExchangeBind(source, "", middle, false, nil))
	s.bind(queue, "", middle, nil)
	s.bind(queue, "to.queue", source, nil)
	publish := func() {
		for _, key := range []string{"to.queue", "to.other", "from"} {
			equal(t, s.publish(channel, source, key, text(key)), true)
		}
	}
	publish()
	equal(t, s.drain(queue), []string{"to.queue", "to.other"})
	s.must(channel.ExchangeUnbind(middle, "to.#", source, false, nil))
	publish()
	equal(t, s.drain(queue), []string{"to.queue"})
}

func TestAlternateExchange(t *testing.T) {
	s := newSession(t)
	channel := s.confirmChannel()
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	alternate := s.exchange("alternate", "fanout", nil)
	exchange := s.exchange("main", "direct", amqp.Table{"alternate-exchange": alternate})
	known, unknown := s.queue("known", nil), s.queue("unknown", nil)
	s.bind(known, "known", exchange, nil)
	s.bind(unknown, "", alternate, nil)
	for _, key := range []string{"known", "other"} {
		confirmation, err := channel.PublishWithDeferredConfirm(exchange, key, true, false, text(key))
		s.must(err)
		equal(t, s.confirmed(confirmation), true)
	}
	idle(t, returns)
	equal(t, s.drain(known), []string{"known"})
	delivery := s.get(channel, unknown, true)
	equal(t, []any{delivery.Exchange, delivery.RoutingKey}, []any{exchange, "other"})
}

func TestAutoDeleteExchange(t *testing.T) {
	s := newSession(t)
	channel, exchange, queue := s.channel(), s.name("auto"), s.queue("q", nil)
	s.must(channel.ExchangeDeclare(exchange, "fanout", true, true, false, false, nil))
	s.must(channel.QueueBind(queue, "", exchange, false, nil))
	s.must(channel.ExchangeDeclarePassive(exchange, "fanout", true, true, false, false, nil))
	s.must(channel.QueueUnbind(queue, "", exchange, nil))
	s.refused(channel, 404, "NOT_FOUND - no exchange '"+exchange+"' in vhost '/'", func() error {
		return channel.ExchangeDeclarePassive(exchange, "fanout", true, true, false, false, nil)
	})
}
