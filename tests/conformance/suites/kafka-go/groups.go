package main

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

func autoCreated(ctx context.Context) error {
	name := fresh("auto")
	writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name, AllowAutoTopicCreation: true, MaxAttempts: 30}
	sent := messages(5, "v")
	if err := write(ctx, writer, sent); err != nil {
		return err
	}
	reader := group(fresh("g"), name)
	defer reader.Close()
	return read(ctx, reader, sent)
}

func onePartition(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	sent := messages(10, "v")
	sent[3].Headers = []kafka.Header{{Key: "a", Value: []byte("b")}, {Key: "a", Value: []byte("c")}}
	if err := write(ctx, &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name}, sent); err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: name})
	defer reader.Close()
	if err := reader.SetOffset(3); err != nil {
		return err
	}
	message, err := reader.ReadMessage(ctx)
	if err != nil {
		return err
	}
	if message.Offset != 3 || len(message.Headers) != 2 || string(message.Headers[1].Value) != "c" {
		return fmt.Errorf("read %+v", message)
	}
	lag, err := reader.ReadLag(ctx)
	if err != nil || lag != 6 {
		return fmt.Errorf("lag %d, %v", lag, err)
	}
	if err := reader.SetOffsetAt(ctx, time.Now().Add(-time.Hour)); err != nil {
		return err
	}
	return read(ctx, reader, sent)
}

func leaderConnection(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	conn, err := kafka.DialLeader(ctx, "tcp", brokers[0], name, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := conn.WriteMessages(messages(5, "v")...); err != nil {
		return err
	}
	first, last, err := conn.ReadOffsets()
	if err != nil || first != 0 || last != 5 {
		return fmt.Errorf("offsets %d to %d, %v", first, last, err)
	}
	message, err := conn.ReadMessage(1 << 20)
	if err != nil || string(message.Value) != "v0" {
		return fmt.Errorf("read %q, %v", message.Value, err)
	}
	if all, err := conn.Brokers(); err != nil || len(all) != 3 {
		return fmt.Errorf("brokers %v, %v", all, err)
	}
	if _, err := conn.Controller(); err != nil {
		return err
	}
	_, err = conn.ApiVersions()
	return err
}

func goesOn(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	for _, part := range []string{"first", "second"} {
		sent := messages(10, part)
		if err := write(ctx, &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name}, sent); err != nil {
			return err
		}
		reader := group(name, name)
		err := read(ctx, reader, sent)
		if closed := reader.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// takesOver has one of two members leave in the middle; together they read everything.
func takesOver(ctx context.Context) error {
	name, err := topic(ctx, 6)
	if err != nil {
		return err
	}
	one, two := group(name, name), group(name, name)
	defer two.Close()
	seen := make(chan string, 1000)
	for _, reader := range []*kafka.Reader{one, two} {
		go func() {
			for {
				message, err := reader.ReadMessage(ctx)
				if err != nil {
					return
				}
				seen <- string(message.Value)
			}
		}()
	}
	all := map[string]bool{}
	for round, part := range []string{"first", "second"} {
		if round == 1 {
			if err := one.Close(); err != nil {
				return err
			}
		}
		sent := messages(60, part)
		writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name, Balancer: &kafka.RoundRobin{}}
		if err := write(ctx, writer, sent); err != nil {
			return err
		}
		for len(all) < 60*(round+1) {
			select {
			case value := <-seen:
				all[value] = true
			case <-ctx.Done():
				return fmt.Errorf("read %d in round %d", len(all), round)
			}
		}
	}
	return nil
}
