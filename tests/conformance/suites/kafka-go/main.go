// Command cases uses kafka-go as its users do: nothing is set but the brokers' addresses.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const limit = 90 * time.Second

var (
	brokers = strings.Split(os.Getenv("BOOTSTRAP"), ",")
	client  = &kafka.Client{Addr: kafka.TCP(brokers...)}
	names   int
)

func fresh(what string) string {
	names++
	return fmt.Sprintf("kafka-go-%s-%d", what, names)
}

// scene runs one case and writes down what came of it.
func scene(name string, body func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	result := "passed\t" + name
	if err := body(ctx); err != nil {
		result = fmt.Sprintf("failed\t%s\t%s", name, strings.Join(strings.Fields(err.Error()), " "))
	}
	fmt.Println(result)
	out, err := os.OpenFile(os.Getenv("RESULTS"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	defer out.Close()
	if _, err := fmt.Fprintln(out, result); err != nil {
		panic(err)
	}
}

func topic(ctx context.Context, partitions int) (string, error) {
	name := fresh("t")
	answer, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: partitions, ReplicationFactor: 3}},
	})
	if err != nil {
		return name, err
	}
	return name, answer.Errors[name]
}

func messages(count int, prefix string) []kafka.Message {
	all := make([]kafka.Message, count)
	for i := range all {
		all[i] = kafka.Message{Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%s%d", prefix, i)}
	}
	return all
}

func write(ctx context.Context, writer *kafka.Writer, sent []kafka.Message) error {
	defer writer.Close()
	return writer.WriteMessages(ctx, sent...)
}

// read reads as many as were sent and compares them, whatever their order.
func read(ctx context.Context, reader *kafka.Reader, sent []kafka.Message) error {
	var want, got []string
	for _, each := range sent {
		want = append(want, string(each.Value))
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return fmt.Errorf("after %d of %d: %w", len(got), len(sent), err)
		}
		got = append(got, string(message.Value))
	}
	sort.Strings(want)
	sort.Strings(got)
	for i := range want {
		if want[i] != got[i] {
			return fmt.Errorf("sent %q, read %q", want[i], got[i])
		}
	}
	return nil
}

func group(name string, topics ...string) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, GroupID: name, GroupTopics: topics, StartOffset: kafka.FirstOffset})
}

// roundTrip writes with this writer and reads in a group.
func roundTrip(count int, change func(*kafka.Writer)) func(context.Context) error {
	return func(ctx context.Context) error {
		name, err := topic(ctx, 3)
		if err != nil {
			return err
		}
		writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name}
		change(writer)
		sent := messages(count, "v")
		if err := write(ctx, writer, sent); err != nil {
			return err
		}
		reader := group(fresh("g"), name)
		defer reader.Close()
		return read(ctx, reader, sent)
	}
}

func main() {
	scene("produce and consume in a group", roundTrip(100, func(*kafka.Writer) {}))
	for _, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		scene("compression: "+codec.String(), roundTrip(100, func(w *kafka.Writer) { w.Compression = codec }))
	}
	for _, acks := range []kafka.RequiredAcks{kafka.RequireNone, kafka.RequireOne, kafka.RequireAll} {
		scene("acks="+acks.String(), roundTrip(100, func(w *kafka.Writer) { w.RequiredAcks = acks }))
	}
	scene("a topic is created by writing to it", autoCreated)
	scene("a reader of one partition: offsets, lag, headers", onePartition)
	scene("a connection to a leader", leaderConnection)
	scene("a group goes on where it committed", goesOn)
	scene("two members share a topic and one takes over", takesOver)
	scene("admin: topics, partitions, records", adminTopics)
	scene("admin: a topic that is there, a bad name", adminErrors)
	scene("admin: configuration", adminConfigs)
	scene("admin: groups", adminGroups)
	scene("admin: reassignments and elections", adminReassign)
	scene("transactions by single requests", transactions)
}
