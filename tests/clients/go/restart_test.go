package clients

// These tests stop and restart a broker, so each uses one of its own.

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// place is where a broker runs that a test may stop and start again.
type place struct {
	*testing.T
	broker *broker
}

func newPlace(t *testing.T) *place {
	t.Helper()
	if foreignBroker {
		t.Skip("this broker must not be restarted")
	}
	t.Parallel()
	started, err := startBroker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.remove)
	return &place{T: t, broker: started}
}

// stop ends the broker in an orderly way.
func (p *place) stop() {
	p.Helper()
	if err := p.broker.stop(); err != nil {
		p.Fatal(err)
	}
}

// restart starts the broker again with the data and on the port that it had.
func (p *place) restart() {
	p.Helper()
	if err := p.broker.start(); err != nil {
		p.Fatal(err)
	}
}

func assertForced(t *testing.T, closed <-chan *amqp.Error) {
	t.Helper()
	reply := receive(t, closed, "the connection to be closed")
	equal(t, reply.Code, 320)
	if !strings.HasPrefix(reply.Reason, "CONNECTION_FORCED - ") {
		t.Fatalf("unexpected reason: %s", reply.Reason)
	}
}

func TestAStoppingBrokerClosesItsConnections(t *testing.T) {
	p := newPlace(t)
	s := sessionOn(t, p.broker.url())
	closes := []<-chan *amqp.Error{}
	for count := 0; count < 5; count++ {
		connection := s.connect(amqp.Config{})
		closes = append(closes, connection.NotifyClose(make(chan *amqp.Error, 1)))
		channel := s.channelOn(connection)
		closes = append(closes, channel.NotifyClose(make(chan *amqp.Error, 1)))
		queue, err := channel.QueueDeclare("", false, false, true, false, nil)
		s.must(err)
		s.consume(channel, queue.Name, "", nil)
	}
	p.stop()
	for _, closed := range closes {
		assertForced(t, closed)
	}
}

func TestAClientGoesOnAfterARestart(t *testing.T) {
	p := newPlace(t)
	url := p.broker.url()
	work := func(body string) *amqp.Connection {
		connection, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		s := &session{T: t, url: url, main: connection}
		channel := s.confirmChannel()
		s.must(channel.ExchangeDeclare("orders", "topic", true, false, false, false, nil))
		s.must(declare(channel, "orders", nil))
		s.must(channel.QueueBind("orders", "order.#", "orders", false, nil))
		deliveries := s.consumeAutoAck(channel, "orders")
		equal(t, s.publish(channel, "orders", "order.new", text(body)), true)
		equal(t, string(s.take(deliveries).Body), body)
		return connection
	}
	closed := work("before").NotifyClose(make(chan *amqp.Error, 1))
	p.stop()
	assertForced(t, closed)
	if _, err := amqp.Dial(url); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, expected %v", err, syscall.ECONNREFUSED)
	}
	p.restart()
	if err := work("after").Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsDurableSurvivesARestart(t *testing.T) {
	for _, ending := range []string{"stopped", "killed"} {
		t.Run(ending, func(t *testing.T) {
			p := newPlace(t)
			connect := func() *session {
				connection, err := amqp.Dial(p.broker.url())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = connection.Close() })
				return &session{T: t, url: p.broker.url(), main: connection}
			}
			persistent := func(body string) amqp.Publishing {
				return amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
			}
			s := connect()
			channel := s.confirmChannel()
			s.must(channel.ExchangeDeclare("kept", "direct", true, false, false, false, nil))
			s.must(declare(channel, "kept", nil))
			s.must(channel.QueueBind("kept", "key", "kept", false, nil))
			_, err := channel.QueueDeclare("transient", false, false, false, false, nil)
			s.must(err)
			equal(t, s.publish(channel, "kept", "key", persistent("persistent")), true)
			equal(t, s.publish(channel, "kept", "key", text("transient")), true)

			if ending == "stopped" {
				p.stop()
			} else {
				p.broker.kill()
			}
			p.restart()

			s = connect()
			channel = s.confirmChannel()
			equal(t, s.publish(channel, "kept", "key", persistent("routed again")), true)
			equal(t, strings.Join(s.drain("kept"), ", "), "persistent, routed again")
			s.refused(channel, 404, "NOT_FOUND - no queue 'transient' in vhost '/'", func() error {
				_, err := channel.QueueDeclarePassive("transient", false, false, false, false, nil)
				return err
			})
		})
	}
}

// recovering opens a connection that the client opens anew, with all it declared, whenever it is lost.
func (p *place) recovering() (*session, <-chan *amqp.StateChanged) {
	p.Helper()
	url := p.broker.url()
	connection, err := amqp.DialConfig(url, amqp.Config{Recovery: &amqp.Recovery{
		ReconnectionConfig: &amqp.ReconnectionConfig{MaxRetryCount: 50, RetryInterval: 50 * time.Millisecond},
	}})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = connection.Close() })
	states := make(chan *amqp.StateChanged, 100)
	connection.NotifyStateChange(states)
	return &session{T: p.T, url: url, main: connection}, states
}

func awaitState(t *testing.T, states <-chan *amqp.StateChanged, wanted amqp.LifeCycleState) {
	t.Helper()
	for {
		if changed := receive(t, states, "the connection to be "+wanted.String()); changed.To == wanted {
			equal(t, len(changed.SkippedTopologyEntities), 0)
			return
		}
	}
}

func TestTheClientRecoversItsTopology(t *testing.T) {
	for _, ending := range []string{"stopped", "killed"} {
		t.Run(ending, func(t *testing.T) {
			p := newPlace(t)
			s, states := p.recovering()
			channel := s.confirmChannel()
			s.must(channel.ExchangeDeclare("source", "topic", true, false, false, false, nil))
			s.must(channel.ExchangeDeclare("end", "fanout", true, false, false, false, nil))
			s.must(channel.ExchangeBind("end", "#", "source", false, nil))
			s.must(declare(channel, "recovered", amqp.Table{"x-max-length": int32(10)}))
			s.must(channel.QueueBind("recovered", "", "end", false, nil))
			deliveries := s.consumeAutoAck(channel, "recovered")
			equal(t, s.publish(channel, "source", "any", text("before")), true)
			equal(t, string(s.take(deliveries).Body), "before")

			if ending == "stopped" {
				p.stop()
			} else {
				p.broker.kill()
			}
			awaitState(t, states, amqp.StateReconnecting)
			p.restart()
			awaitState(t, states, amqp.StateOpen)

			publisher, err := s.main.Channel()
			s.must(err)
			s.must(publisher.Confirm(false))
			equal(t, s.publish(publisher, "source", "any", text("after")), true)
			equal(t, string(s.take(deliveries).Body), "after")
		})
	}
}
