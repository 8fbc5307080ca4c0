// kafkajs as its users have it: nothing is set but the brokers' addresses.
'use strict'
const fs = require('fs')
const assert = require('assert')
const { Kafka, logLevel, CompressionTypes, ConfigResourceTypes, AclResourceTypes, ResourcePatternTypes, AclOperationTypes, AclPermissionTypes } = require('kafkajs')

const kafka = new Kafka({ brokers: process.env.BOOTSTRAP.split(','), logLevel: logLevel.ERROR })
const LIMIT = 60000
let nextName = 0
const fresh = what => `kafkajs-${what}-${nextName++}`

function report(outcome, name, reason = '') {
  const flat = String(reason).replace(/\s+/g, ' ').slice(0, 300)
  fs.appendFileSync(process.env.RESULTS, `${outcome}\t${name}\t${flat}\n`)
  console.log(outcome, name, reason)
}

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: not within ${LIMIT / 1000} s`)), LIMIT) })
  try { return await Promise.race([promise, late]) } finally { clearTimeout(timer) }
}

async function scene(name, body) {
  const clients = []
  const use = async client => { await client.connect(); clients.push(client); return client }
  try {
    await within(body(use), name)
    report('passed', name)
  } catch (error) {
    report('failed', name, error.stack.split('\n')[0])
  }
  for (const client of clients) await client.disconnect().catch(error => console.log('disconnect:', error.message))
}

const values = (count, prefix) => Array.from({ length: count }, (_, i) => ({ key: `k${i}`, value: `${prefix}${i}` }))

// Reads with the given consumer until `count` messages are there, and then as long again as nothing more may come.
async function read(consumer, topic, count) {
  const seen = []
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => reject(event.payload.error))
    consumer.run({ eachMessage: async ({ partition, message }) => {
      seen.push({ partition, offset: message.offset, key: String(message.key), value: String(message.value), headers: message.headers })
      if (seen.length >= count) setTimeout(resolve, 500)
    } }).catch(reject)
  })
  return seen
}

const sorted = list => list.map(m => m.value).sort()

async function topicOf(use, partitions = 3) {
  const admin = await use(kafka.admin())
  const topic = fresh('t')
  assert.strictEqual(await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions }] }), true)
  return { admin, topic }
}

async function main() {
  await scene('produce and consume in a group', async use => {
    const { topic } = await topicOf(use)
    const producer = await use(kafka.producer())
    const sent = values(300, 'v')
    const acks = await producer.send({ topic, messages: sent })
    assert(acks.every(a => a.errorCode === 0))
    const seen = await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 300)
    assert.deepStrictEqual(sorted(seen), sorted(sent))
  })
  await scene('a topic is created by writing to it', async use => {
    const topic = fresh('auto')
    const producer = await use(kafka.producer())
    await producer.send({ topic, messages: values(5, 'a') })
    assert.strictEqual((await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 5)).length, 5)
  })
  await scene('headers, empty keys and tombstones', async use => {
    const { topic } = await topicOf(use, 1)
    const producer = await use(kafka.producer())
    await producer.send({ topic, messages: [{ key: null, value: 'x', headers: { a: 'b', c: ['d', 'e'] } }, { key: 'gone', value: null }] })
    const seen = await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 2)
    assert.strictEqual(String(seen[0].headers.a), 'b')
    assert.deepStrictEqual(seen[0].headers.c.map(String), ['d', 'e'])
    assert.strictEqual(seen[1].value, 'null')
  })
  await scene('gzip', async use => {
    const { topic } = await topicOf(use)
    const producer = await use(kafka.producer())
    await producer.send({ topic, compression: CompressionTypes.GZIP, messages: values(1000, 'z'.repeat(100)) })
    assert.strictEqual((await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 1000)).length, 1000)
  })
  for (const acks of [0, 1, -1]) {
    await scene(`acks=${acks}`, async use => {
      const { topic } = await topicOf(use)
      const producer = await use(kafka.producer())
      for (let i = 0; i < 10; i++) await producer.send({ topic, acks, messages: values(10, `a${i}-`) })
      assert.strictEqual((await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 100)).length, 100)
    })
  }
  await scene('an idempotent producer', async use => {
    const { topic } = await topicOf(use)
    const producer = await use(kafka.producer({ idempotent: true }))
    for (let i = 0; i < 10; i++) await producer.send({ topic, messages: values(20, `i${i}-`) })
    assert.strictEqual((await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 200)).length, 200)
  })
  await scene('two members share a topic and one takes over', async use => {
    const { topic } = await topicOf(use, 6)
    const groupId = fresh('g')
    const producer = await use(kafka.producer())
    const seen = [new Set(), new Set()]
    const all = new Set()
    const members = []
    for (const i of [0, 1]) {
      const member = await use(kafka.consumer({ groupId }))
      members.push(member)
      await member.subscribe({ topic, fromBeginning: true })
      await member.run({ eachMessage: async ({ partition, message }) => { seen[i].add(partition); all.add(String(message.value)) } })
    }
    let round = 0
    const until = async condition => { while (!condition()) { await producer.send({ topic, messages: values(30, `r${round++}-`) }); await new Promise(r => setTimeout(r, 200)) } }
    await until(() => seen[0].size > 0 && seen[1].size > 0)
    await members[0].disconnect()
    seen[1].clear()
    await until(() => seen[1].size === 6)
    while (all.size !== round * 30) await new Promise(r => setTimeout(r, 100))
  })
  await scene('a group goes on where it committed', async use => {
    const { topic } = await topicOf(use, 1)
    const groupId = fresh('g')
    const producer = await use(kafka.producer())
    await producer.send({ topic, messages: values(10, 'first') })
    const one = await use(kafka.consumer({ groupId }))
    await read(one, topic, 10)
    await one.disconnect()
    await producer.send({ topic, messages: values(10, 'second') })
    const seen = await read(await use(kafka.consumer({ groupId })), topic, 10)
    assert(seen.every(m => m.value.startsWith('second')), JSON.stringify(sorted(seen)))
  })
  await scene('a committed and an aborted transaction', async use => {
    const { topic } = await topicOf(use)
    const producer = await use(kafka.producer({ transactionalId: fresh('x'), maxInFlightRequests: 1, idempotent: true }))
    const kept = await producer.transaction()
    await kept.send({ topic, messages: values(20, 'kept') })
    await kept.commit()
    const dropped = await producer.transaction()
    await dropped.send({ topic, messages: values(20, 'dropped') })
    await dropped.abort()
    const last = await producer.transaction()
    await last.send({ topic, messages: values(1, 'last') })
    await last.commit()
    const seen = await read(await use(kafka.consumer({ groupId: fresh('g') })), topic, 21)
    assert.strictEqual(seen.filter(m => m.value.startsWith('dropped')).length, 0)
    assert.strictEqual(seen.length, 21)
    const dirty = await read(await use(kafka.consumer({ groupId: fresh('g'), readUncommitted: true })), topic, 41)
    assert.strictEqual(dirty.length, 41)
  })
  await scene('offsets are committed in a transaction', async use => {
    const { admin, topic } = await topicOf(use, 1)
    const groupId = fresh('g')
    const producer = await use(kafka.producer({ transactionalId: fresh('x'), maxInFlightRequests: 1, idempotent: true }))
    const end = async (offset, how) => {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: values(1, 'v') })
      await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: [{ partition: 0, offset }] }] })
      await transaction[how]()
    }
    await end('7', 'commit')
    await end('9', 'abort')
    const [fetched] = await admin.fetchOffsets({ groupId, topics: [topic] })
    assert.strictEqual(fetched.partitions[0].offset, '7')
  })
  await scene('a second producer fences the first', async use => {
    const { topic } = await topicOf(use)
    const transactionalId = fresh('x')
    const options = { transactionalId, maxInFlightRequests: 1, idempotent: true, retry: { retries: 1 } }
    const first = await use(kafka.producer(options))
    const old = await first.transaction()
    await old.send({ topic, messages: values(1, 'old') })
    const second = await use(kafka.producer(options))
    const current = await second.transaction()
    await current.send({ topic, messages: values(1, 'new') })
    await current.commit()
    await assert.rejects(old.send({ topic, messages: values(1, 'zombie') }))
  })
  await scene('admin: topics, partitions, offsets', async use => {
    const { admin, topic } = await topicOf(use, 2)
    assert((await admin.listTopics()).includes(topic))
    const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.strictEqual(metadata.topics[0].partitions.length, 2)
    assert.strictEqual(metadata.topics[0].partitions[0].replicas.length, 3)
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    assert.strictEqual((await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length, 5)
    const producer = await use(kafka.producer())
    await producer.send({ topic, messages: Array.from({ length: 10 }, (_, i) => ({ partition: 0, value: `v${i}` })) })
    const offsets = await admin.fetchTopicOffsets(topic)
    assert.deepStrictEqual(offsets.find(o => o.partition === 0), { partition: 0, offset: '10', high: '10', low: '0' })
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
    assert.strictEqual((await admin.fetchTopicOffsets(topic)).find(o => o.partition === 0).low, '4')
    const byTime = await admin.fetchTopicOffsetsByTimestamp(topic, Date.now() - 3600000)
    assert.strictEqual(byTime.find(o => o.partition === 0).offset, '4')
    await admin.deleteTopics({ topics: [topic] })
    assert(!(await admin.listTopics()).includes(topic))
    await assert.rejects(admin.fetchTopicMetadata({ topics: [topic] }))
  })
  await scene('admin: a topic that is there, a bad name, too many replicas', async use => {
    const { admin, topic } = await topicOf(use)
    assert.strictEqual(await admin.createTopics({ topics: [{ topic }] }), false)
    await assert.rejects(admin.createTopics({ topics: [{ topic: 'bad/name' }] }), e => /INVALID_TOPIC|invalid topic/i.test(JSON.stringify(e.errors || e.message) + e.message))
    await assert.rejects(admin.createTopics({ topics: [{ topic: fresh('t'), replicationFactor: 7 }] }))
  })
  await scene('admin: configuration', async use => {
    const { admin, topic } = await topicOf(use)
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '123456' }] }] })
    const found = await admin.describeConfigs({ includeSynonyms: true, resources: [{ ...resource, configNames: ['retention.ms'] }] })
    assert.strictEqual(found.resources[0].configEntries[0].configValue, '123456')
    const broker = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.BROKER, name: '0' }] })
    assert(broker.resources[0].configEntries.length > 50)
  })
  await scene('admin: groups', async use => {
    const { admin, topic } = await topicOf(use)
    const groupId = fresh('g')
    const producer = await use(kafka.producer())
    await producer.send({ topic, messages: values(9, 'v') })
    const consumer = await use(kafka.consumer({ groupId }))
    await read(consumer, topic, 9)
    const { groups } = await admin.describeGroups([groupId])
    assert.strictEqual(groups[0].state, 'Stable')
    assert.strictEqual(groups[0].members.length, 1)
    assert((await admin.listGroups()).groups.some(g => g.groupId === groupId))
    await assert.rejects(admin.deleteGroups([groupId]))
    await consumer.disconnect()
    const total = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions.reduce((sum, p) => sum + Math.max(0, Number(p.offset)), 0)
    assert.strictEqual(total, 9)
    await admin.resetOffsets({ groupId, topic, earliest: true })
    await admin.deleteGroups([groupId])
    assert(!(await admin.listGroups()).groups.some(g => g.groupId === groupId))
  })
  await scene('admin: the cluster', async use => {
    const admin = await use(kafka.admin())
    const cluster = await admin.describeCluster()
    assert.strictEqual(cluster.brokers.length, 3)
    assert(cluster.clusterId.length > 0)
    assert(cluster.brokers.some(b => b.nodeId === cluster.controller))
  })
  await scene('admin: reassignments', async use => {
    const { admin, topic } = await topicOf(use, 1)
    await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas: [2, 1] }] }] })
    for (;;) {
      const { topics } = await admin.listPartitionReassignments({ topics: [{ topic, partitions: [0] }] })
      if (topics.length === 0) break
      await new Promise(r => setTimeout(r, 100))
    }
    const { replicas } = (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions[0]
    assert.deepStrictEqual(replicas.slice().sort(), [1, 2])
  })
  await scene('admin: access control lists', async use => {
    const admin = await use(kafka.admin())
    const acl = { resourceType: AclResourceTypes.TOPIC, resourceName: 'x', resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:a', host: '*', operation: AclOperationTypes.READ, permissionType: AclPermissionTypes.ALLOW }
    await admin.createAcls({ acl: [acl] })
  })
}

main().then(() => process.exit(0), error => { console.error(error); process.exit(1) })
