package clients

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// everyField has a header of every type the client can send; each arrives as the same Go type.
func everyField() amqp.Table {
	return amqp.Table{
		"nil":       nil,
		"true":      true,
		"false":     false,
		"uint8":     byte(255),
		"int8":      int8(-128),
		"int16":     int16(math.MinInt16),
		"uint16":    uint16(math.MaxUint16),
		"int32":     int32(math.MinInt32),
		"uint32":    uint32(math.MaxUint32),
		"int64 min": int64(math.MinInt64),
		"int64 max": int64(math.MaxInt64),
		"float32":   float32(1.5),
		"float64":   math.Pi,
		"decimal":   amqp.Decimal{Scale: 2, Value: 12345},
		"string":    "grüße 🐇",
		"empty":     "",
		"long":      strings.Repeat("x", 5000),
		"bytes":     []byte{0, 255, 206, 10},
		"time":      time.Unix(1_700_000_000, 0),
		"array":     []any{int32(1), "two", []any{nil, amqp.Table{"three": int64(3)}}},
		"table":     amqp.Table{"inner": amqp.Table{"innermost": []any{true}}},
		"no fields": amqp.Table{},
	}
}

func TestHeadersOfEveryTypeRoundTrip(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("headers", nil)
	equal(t, s.publish(channel, "", queue, amqp.Publishing{Headers: everyField()}), true)
	assertFields(t, s.get(channel, queue, true).Headers)
}

func TestTheTypesOfHeadersSurviveDeadLettering(t *testing.T) {
	g := newGraveyard(t, nil)
	equal(t, g.send(amqp.Publishing{Headers: everyField()}), true)
	g.must(g.get(g.channel, g.queue, false).Reject(false))
	headers := g.take(g.deliveries).Headers
	for key := range headers {
		if strings.HasPrefix(key, "x-") {
			delete(headers, key)
		}
	}
	assertFields(t, headers)
}

func assertFields(t *testing.T, headers amqp.Table) {
	t.Helper()
	expected := everyField()
	equal(t, len(headers), len(expected))
	for key, value := range expected {
		t.Logf("header %q", key)
		if moment, isTime := value.(time.Time); isTime {
			equal(t, headers[key].(time.Time).Equal(moment), true)
			continue
		}
		equal(t, headers[key], value)
	}
}

func TestPropertiesRoundTrip(t *testing.T) {
	s := newSession(t)
	channel, queue := s.confirmChannel(), s.queue("properties", nil)
	sent := amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 7,
		CorrelationId: "correlation", ReplyTo: "reply", Expiration: "60000", MessageId: "message",
		Timestamp: time.Unix(1_700_000_000, 0), Type: "kind", UserId: "guest", AppId: "application",
	}
	equal(t, s.publish(channel, "", queue, sent), true)
	got := s.get(channel, queue, true)
	equal(t, got.Timestamp.Equal(sent.Timestamp), true)
	received := amqp.Publishing{
		ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, DeliveryMode: got.DeliveryMode, Priority: got.Priority,
		CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo, Expiration: got.Expiration, MessageId: got.MessageId,
		Timestamp: sent.Timestamp, Type: got.Type, UserId: got.UserId, AppId: got.AppId,
	}
	equal(t, received, sent)
}

func TestBodiesOfAnySizeRoundTrip(t *testing.T) {
	s := newSession(t)
	for _, frameSize := range []int{0, 8192} {
		t.Run(fmt.Sprintf("frame size %d", frameSize), func(t *testing.T) {
			connection := s.connect(amqp.Config{FrameSize: frameSize})
			channel, queue := s.confirmChannelOn(connection), s.queue(fmt.Sprintf("bodies-%d", frameSize), nil)
			deliveries := s.consume(s.channelOn(connection), queue, "", nil)
			payload := connection.Config.FrameSize - 8
			for _, size := range []int{0, 1, payload - 1, payload, payload + 1, 2 * payload, 5 << 20} {
				body := make([]byte, size)
				if _, err := rand.Read(body); err != nil {
					t.Fatal(err)
				}
				equal(t, s.publish(channel, "", queue, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body}), true)
				delivery := s.take(deliveries)
				if !bytes.Equal(delivery.Body, body) {
					t.Fatalf("a body of %d bytes did not arrive unchanged", size)
				}
				s.must(delivery.Ack(false))
			}
		})
	}
}
