// Package clients exercises the Warren broker with amqp091-go.
package clients

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// soon is how long a test waits for something the broker must do at once.
const soon = 10 * time.Second

// brokerURL is the broker the tests share, foreignBroker whether it is not Warren.
var (
	brokerURL     = os.Getenv("AMQP_URL")
	foreignBroker = brokerURL != ""
)

func TestMain(m *testing.M) { os.Exit(runSuite(m)) }

func runSuite(m *testing.M) int {
	if foreignBroker {
		return m.Run()
	}
	shared, err := startBroker()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.remove()
	brokerURL = shared.url()
	code := m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "end of the broker's log:\n%s\n", shared.log())
	}
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// session is what a test needs of a broker: connections that are closed, and queues and exchanges that are
// deleted, when it ends.
type session struct {
	*testing.T
	url    string
	prefix string
	main   *amqp.Connection
}

// newSession opens a session on the shared broker; the test runs in parallel to others.
func newSession(t *testing.T) *session {
	t.Helper()
	t.Parallel()
	return sessionOn(t, brokerURL)
}

func sessionOn(t *testing.T, url string) *session {
	t.Helper()
	random := make([]byte, 6)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	s := &session{T: t, url: url, prefix: "go-" + hex.EncodeToString(random)}
	s.main = s.connect(amqp.Config{})
	return s
}

// connect opens a further connection.
func (s *session) connect(config amqp.Config) *amqp.Connection {
	s.Helper()
	connection, err := amqp.DialConfig(s.url, config)
	s.must(err)
	s.Cleanup(func() { _ = connection.Close() })
	return connection
}

func (s *session) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *session) channel() *amqp.Channel { s.Helper(); return s.channelOn(s.main) }

func (s *session) channelOn(connection *amqp.Connection) *amqp.Channel {
	s.Helper()
	channel, err := connection.Channel()
	s.must(err)
	return channel
}

func (s *session) confirmChannel() *amqp.Channel { s.Helper(); return s.confirmChannelOn(s.main) }

func (s *session) confirmChannelOn(connection *amqp.Connection) *amqp.Channel {
	s.Helper()
	channel := s.channelOn(connection)
	s.must(channel.Confirm(false))
	return channel
}

// name returns a name no other test uses.
func (s *session) name(suffix string) string { return s.prefix + "-" + suffix }

// queue declares a durable queue with that suffix that is deleted when the test ends, and returns its name.
func (s *session) queue(suffix string, arguments amqp.Table) string {
	s.Helper()
	queue := s.name(suffix)
	channel := s.channel()
	defer channel.Close()
	_, err := channel.QueueDeclare(queue, true, false, false, false, arguments)
	s.must(err)
	s.cleanUp(func(cleaner *amqp.Channel) error {
		_, err := cleaner.QueueDelete(queue, false, false, false)
		return err
	})
	return queue
}

// exchange declares a durable exchange with that suffix that is deleted when the test ends, and returns its name.
func (s *session) exchange(suffix, kind string, arguments amqp.Table) string {
	s.Helper()
	exchange := s.name(suffix)
	channel := s.channel()
	defer channel.Close()
	s.must(channel.ExchangeDeclare(exchange, kind, true, false, false, false, arguments))
	s.cleanUp(func(cleaner *amqp.Channel) error { return cleaner.ExchangeDelete(exchange, false, false) })
	return exchange
}

func (s *session) bind(queue, key, exchange string, arguments amqp.Table) {
	s.Helper()
	channel := s.channel()
	defer channel.Close()
	s.must(channel.QueueBind(queue, key, exchange, false, arguments))
}

// cleanUp runs action on a connection of its own when the test ends, for the test's may be gone by then.
func (s *session) cleanUp(action func(*amqp.Channel) error) {
	s.Cleanup(func() {
		connection, err := amqp.Dial(s.url)
		s.must(err)
		defer connection.Close()
		if err := action(s.channelOn(connection)); err != nil {
			s.Error(err)
		}
	})
}

// publish sends a message on a confirm channel and reports whether the broker confirmed it.
func (s *session) publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) bool {
	s.Helper()
	confirmation, err := channel.PublishWithDeferredConfirm(exchange, key, false, false, message)
	s.must(err)
	return s.confirmed(confirmation)
}

func (s *session) confirmed(confirmation *amqp.DeferredConfirmation) bool {
	s.Helper()
	select {
	case <-confirmation.Done():
		return confirmation.Acked()
	case <-time.After(soon):
		s.Fatal("no publisher confirm")
		return false
	}
}

// fill publishes the bodies to the queue in order and returns when the broker confirmed them all.
func (s *session) fill(channel *amqp.Channel, queue string, bodies ...string) {
	s.Helper()
	confirmations := make([]*amqp.DeferredConfirmation, 0, len(bodies))
	for _, body := range bodies {
		confirmation, err := channel.PublishWithDeferredConfirm("", queue, false, false, text(body))
		s.must(err)
		confirmations = append(confirmations, confirmation)
	}
	for _, confirmation := range confirmations {
		if !s.confirmed(confirmation) {
			s.Fatal("the broker refused a message")
		}
	}
}

// get takes one message and fails when there is none.
func (s *session) get(channel *amqp.Channel, queue string, autoAck bool) amqp.Delivery {
	s.Helper()
	delivery, found, err := channel.Get(queue, autoAck)
	s.must(err)
	if !found {
		s.Fatalf("queue %s is empty", queue)
	}
	return delivery
}

// drain takes everything out of the queue and returns the bodies.
func (s *session) drain(queue string) []string {
	s.Helper()
	channel := s.channel()
	defer channel.Close()
	bodies := []string{}
	for {
		delivery, found, err := channel.Get(queue, true)
		s.must(err)
		if !found {
			return bodies
		}
		bodies = append(bodies, string(delivery.Body))
	}
}

// ready returns how many messages the queue holds for delivery.
func (s *session) ready(queue string) int {
	s.Helper()
	channel := s.channel()
	defer channel.Close()
	inspected, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	s.must(err)
	return inspected.Messages
}

// consume starts a consumer without automatic acknowledgement.
func (s *session) consume(channel *amqp.Channel, queue, tag string, arguments amqp.Table) <-chan amqp.Delivery {
	s.Helper()
	deliveries, err := channel.Consume(queue, tag, false, false, false, false, arguments)
	s.must(err)
	return deliveries
}

// consumeAutoAck starts a consumer whose deliveries need no acknowledgement.
func (s *session) consumeAutoAck(channel *amqp.Channel, queue string) <-chan amqp.Delivery {
	s.Helper()
	deliveries, err := channel.Consume(queue, "", true, false, false, false, nil)
	s.must(err)
	return deliveries
}

// take returns the next delivery.
func (s *session) take(deliveries <-chan amqp.Delivery) amqp.Delivery {
	s.Helper()
	return receive(s.T, deliveries, "a delivery")
}

// takeBodies returns the bodies of the next count deliveries, and the last of these.
func (s *session) takeBodies(deliveries <-chan amqp.Delivery, count int) ([]string, amqp.Delivery) {
	s.Helper()
	bodies, last := []string{}, amqp.Delivery{}
	for len(bodies) < count {
		last = s.take(deliveries)
		bodies = append(bodies, string(last.Body))
	}
	return bodies, last
}

// refused runs action and checks that the broker closes the channel with that code and text.
func (s *session) refused(channel *amqp.Channel, code int, reason string, action func() error) {
	s.Helper()
	assertReply(s.T, s.closeReason(channel, action), code, reason)
}

// closeReason runs action and returns what the broker closes the channel with.
func (s *session) closeReason(channel *amqp.Channel, action func() error) *amqp.Error {
	s.Helper()
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	_ = action()
	return receive(s.T, closed, "the channel to be closed")
}

func assertReply(t *testing.T, err error, code int, reason string) {
	t.Helper()
	var reply *amqp.Error
	if !errors.As(err, &reply) {
		t.Fatalf("not an error from the broker: %v", err)
	}
	equal(t, reply.Reason, reason)
	equal(t, reply.Code, code)
	equal(t, reply.Server, true)
}

func equal(t *testing.T, actual, expected any) {
	t.Helper()
	if !reflect.DeepEqual(actual, expected) {
		t.Fatalf("\n   got %#v\nwanted %#v", actual, expected)
	}
}

// receive returns what comes next, and fails when nothing does or the source is closed.
func receive[T any](t *testing.T, source <-chan T, what string) T {
	t.Helper()
	select {
	case value, open := <-source:
		if !open {
			t.Fatalf("waited for %s, but the source was closed", what)
		}
		return value
	case <-time.After(soon):
		t.Fatalf("waited %s for %s", soon, what)
		panic("unreachable")
	}
}

// idle fails when something is waiting in source.
func idle[T any](t *testing.T, source <-chan T) {
	t.Helper()
	select {
	case value := <-source:
		t.Fatalf("unexpected: %#v", value)
	default:
	}
}

// eventually fails unless probe returns true soon.
func eventually(t *testing.T, what string, probe func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !probe(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s until %s", soon, what)
		}
	}
}

func text(body string) amqp.Publishing { return amqp.Publishing{Body: []byte(body)} }

// numbers returns the whole numbers 1..count as strings.
func numbers(count int) []string {
	result := make([]string, count)
	for index := range result {
		result[index] = strconv.Itoa(index + 1)
	}
	return result
}
