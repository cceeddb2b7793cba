package clients

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestServerProperties(t *testing.T) {
	s := newSession(t)
	capabilities := s.main.Properties["capabilities"].(amqp.Table)
	for _, name := range []string{"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"} {
		t.Logf("capability %s", name)
		equal(t, capabilities[name], true)
	}
	for _, name := range []string{"product", "version", "platform", "cluster_name"} {
		if value, isString := s.main.Properties[name].(string); !isString || value == "" {
			t.Fatalf("server property %s is %#v", name, s.main.Properties[name])
		}
	}
}

func TestNegotiationTakesTheLowerLimit(t *testing.T) {
	s := newSession(t)
	lower := s.connect(amqp.Config{FrameSize: 8192, ChannelMax: 10, Heartbeat: 5 * time.Second})
	equal(t, []any{lower.Config.FrameSize, lower.Config.ChannelMax, lower.Config.Heartbeat}, []any{8192, uint16(10), 5 * time.Second})
	standard := s.main.Config
	equal(t, []any{standard.FrameSize, standard.ChannelMax}, []any{131072, uint16(2047)})
	for count := 0; count < 10; count++ {
		s.channelOn(lower)
	}
	if _, err := lower.Channel(); !errors.Is(err, amqp.ErrChannelMax) {
		t.Fatalf("got %v, expected %v", err, amqp.ErrChannelMax)
	}
}

func TestHeartbeatsKeepAnIdleConnectionAlive(t *testing.T) {
	s := newSession(t)
	connection := s.connect(amqp.Config{Heartbeat: time.Second})
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	channel := s.channelOn(connection)
	// Either side gives up after three silent intervals at the latest.
	time.Sleep(4500 * time.Millisecond)
	idle(t, closed)
	s.must(channel.ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil))
}

// silentConn stops writing when told to, like the socket of a client that hangs.
type silentConn struct {
	net.Conn
	mutex  sync.Mutex
	silent bool
}

func (c *silentConn) Write(data []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.silent {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func TestASilentClientIsDisconnected(t *testing.T) {
	s := newSession(t)
	queue := s.queue("silent", nil)
	s.fill(s.confirmChannel(), queue, "x")
	var socket *silentConn
	connection := s.connect(amqp.Config{Heartbeat: time.Second, Dial: func(network, address string) (net.Conn, error) {
		conn, err := amqp.DefaultDial(soon)(network, address)
		socket = &silentConn{Conn: conn}
		return socket, err
	}})
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	s.take(s.consume(s.channelOn(connection), queue, "", nil))
	socket.mutex.Lock()
	socket.silent = true
	socket.mutex.Unlock()
	receive(t, closed, "the broker to give up on the client")
	again := s.take(s.consumeAutoAck(s.channel(), queue))
	equal(t, []any{string(again.Body), again.Redelivered}, []any{"x", true})
}

func TestTwoHundredChannels(t *testing.T) {
	s := newSession(t)
	channels := []*amqp.Channel{}
	for count := 0; count < 200; count++ {
		channels = append(channels, s.confirmChannel())
	}
	failures := make(chan error, len(channels))
	for index, channel := range channels {
		go func() { failures <- useChannel(channel, fmt.Sprint(index)) }()
	}
	for range channels {
		s.must(receive(t, failures, "a channel to be done"))
	}
}

// useChannel sends itself a message through a queue of its own.
func useChannel(channel *amqp.Channel, body string) error {
	queue, err := channel.QueueDeclare("", false, false, true, false, nil)
	if err != nil {
		return err
	}
	confirmation, err := channel.PublishWithDeferredConfirm("", queue.Name, false, false, text(body))
	if err != nil {
		return err
	}
	<-confirmation.Done()
	delivery, found, err := channel.Get(queue.Name, true)
	if err != nil || !found || string(delivery.Body) != body {
		return fmt.Errorf("found %t, got %q, expected %q: %v", found, delivery.Body, body, err)
	}
	return channel.Close()
}

func TestChannelsCanBeOpenedAndClosedAgainAndAgain(t *testing.T) {
	s := newSession(t)
	for count := 0; count < 200; count++ {
		s.must(s.channel().Close())
	}
}
