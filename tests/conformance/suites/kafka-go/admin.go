package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// until asks for a topic's metadata, which the client keeps for some seconds, until it is as wanted.
func until(ctx context.Context, topic string, wanted func(*kafka.MetadataResponse) bool) error {
	for {
		found, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && found.Topics[0].Error == nil && wanted(found) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %+v", ctx.Err(), found)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func adminTopics(ctx context.Context) error {
	name, err := topic(ctx, 2)
	if err != nil {
		return err
	}
	grown, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: name, Count: 5}}})
	if err != nil || grown.Errors[name] != nil {
		return fmt.Errorf("%v %+v", err, grown)
	}
	err = until(ctx, name, func(found *kafka.MetadataResponse) bool {
		partitions := found.Topics[0].Partitions
		return len(partitions) == 5 && len(partitions[0].Replicas) == 3 && len(found.Brokers) == 3
	})
	if err != nil {
		return err
	}
	writer := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name, RequiredAcks: kafka.RequireAll}
	if err := write(ctx, writer, messages(10, "v")); err != nil {
		return err
	}
	asked := map[string][]kafka.OffsetRequest{name: {}}
	for partition := range 5 {
		asked[name] = append(asked[name], kafka.LastOffsetOf(partition))
	}
	listed, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: asked})
	if err != nil {
		return err
	}
	total := int64(0)
	for _, each := range listed.Topics[name] {
		if each.Error != nil {
			return each.Error
		}
		total += each.LastOffset
	}
	if total != 10 {
		return fmt.Errorf("offsets %+v", listed)
	}
	deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err != nil || deleted.Errors[name] != nil {
		return fmt.Errorf("%v %+v", err, deleted)
	}
	return nil
}

func adminErrors(ctx context.Context) error {
	there, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	for name, wanted := range map[string]error{there: kafka.TopicAlreadyExists, "bad/name": kafka.InvalidTopic} {
		answer, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: 1, ReplicationFactor: 1}}})
		if err != nil || !errors.Is(answer.Errors[name], wanted) {
			return fmt.Errorf("%s: %v %+v", name, err, answer)
		}
	}
	return nil
}

func adminConfigs(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	changed, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "123456", ConfigOperation: kafka.ConfigOperationSet}},
	}}})
	if err != nil || changed.Resources[0].Error != nil {
		return fmt.Errorf("%v %+v", err, changed)
	}
	found, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: name, ConfigNames: []string{"retention.ms"},
	}}})
	if err != nil || found.Resources[0].ConfigEntries[0].ConfigValue != "123456" {
		return fmt.Errorf("%v %+v", err, found)
	}
	return nil
}

func adminGroups(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	sent := messages(9, "v")
	if err := write(ctx, &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: name}, sent); err != nil {
		return err
	}
	reader := group(name, name)
	if err := read(ctx, reader, sent); err != nil {
		return err
	}
	described, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{name}})
	if err != nil || described.Groups[0].GroupState != "Stable" || len(described.Groups[0].Members) != 1 {
		return fmt.Errorf("%v %+v", err, described)
	}
	if err := reader.Close(); err != nil {
		return err
	}
	listed, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{Addr: nil})
	if err != nil || listed.Error != nil {
		return fmt.Errorf("%v %+v", err, listed)
	}
	offsets, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: name, Topics: map[string][]int{name: {0}}})
	if err != nil || offsets.Topics[name][0].CommittedOffset != 9 {
		return fmt.Errorf("%v %+v", err, offsets)
	}
	deleted, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{name}})
	if err != nil || deleted.Errors[name] != nil {
		return fmt.Errorf("%v %+v", err, deleted)
	}
	return nil
}

func adminReassign(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	moved, err := client.AlterPartitionReassignments(ctx, &kafka.AlterPartitionReassignmentsRequest{
		Topic: name, Assignments: []kafka.AlterPartitionReassignmentsRequestAssignment{{PartitionID: 0, BrokerIDs: []int{2, 1}}}, Timeout: 10 * time.Second,
	})
	if err != nil || moved.Error != nil || moved.PartitionResults[0].Error != nil {
		return fmt.Errorf("%v %+v", err, moved)
	}
	for {
		listed, err := client.ListPartitionReassignments(ctx, &kafka.ListPartitionReassignmentsRequest{
			Topics: map[string]kafka.ListPartitionReassignmentsRequestTopic{name: {PartitionIndexes: []int{0}}}, Timeout: 10 * time.Second,
		})
		if err != nil || listed.Error != nil {
			return fmt.Errorf("%v %+v", err, listed)
		}
		if len(listed.Topics) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	elected, err := client.ElectLeaders(ctx, &kafka.ElectLeadersRequest{Topic: name, Partitions: []int{0}, Timeout: 10 * time.Second})
	if err != nil || elected.Error != nil {
		return fmt.Errorf("%v %+v", err, elected)
	}
	return until(ctx, name, func(found *kafka.MetadataResponse) bool { return found.Topics[0].Partitions[0].Leader.ID == 2 })
}

// again repeats what is answered with "concurrent transactions": the markers of the one before are being written.
func again(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if !errors.Is(err, kafka.ConcurrentTransactions) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// transactions commits an offset in a transaction, and another in one that is aborted.
func transactions(ctx context.Context) error {
	name, err := topic(ctx, 1)
	if err != nil {
		return err
	}
	producer, err := client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: name, TransactionTimeoutMs: 10_000})
	if err != nil || producer.Error != nil {
		return fmt.Errorf("%v %+v", err, producer)
	}
	id, epoch := producer.Producer.ProducerID, producer.Producer.ProducerEpoch
	for _, each := range []struct {
		offset int64
		commit bool
	}{{7, true}, {9, false}} {
		err := again(ctx, func() error {
			added, err := client.AddOffsetsToTxn(ctx, &kafka.AddOffsetsToTxnRequest{TransactionalID: name, ProducerID: id, ProducerEpoch: epoch, GroupID: name})
			if err != nil {
				return err
			}
			return added.Error
		})
		if err != nil {
			return err
		}
		committed, err := client.TxnOffsetCommit(ctx, &kafka.TxnOffsetCommitRequest{
			TransactionalID: name, GroupID: name, ProducerID: id, ProducerEpoch: epoch, GenerationID: -1,
			Topics: map[string][]kafka.TxnOffsetCommit{name: {{Partition: 0, Offset: each.offset}}},
		})
		if err != nil || committed.Topics[name][0].Error != nil {
			return fmt.Errorf("%v %+v", err, committed)
		}
		ended, err := client.EndTxn(ctx, &kafka.EndTxnRequest{TransactionalID: name, ProducerID: id, ProducerEpoch: epoch, Committed: each.commit})
		if err != nil || ended.Error != nil {
			return fmt.Errorf("%v %+v", err, ended)
		}
	}
	for {
		found, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: name, Topics: map[string][]int{name: {0}}})
		if err != nil {
			return err
		}
		if found.Topics[name][0].CommittedOffset == 7 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}
