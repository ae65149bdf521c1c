//! The store of a cluster: Redis.
//!
//! Keys (each with a time to live; the braces keep one call's, or one agent's, keys together in a Redis Cluster):
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `sb1:{<CallSid>}:call` | hash | `record`, `epoch`, `owner`, `progress`, `admitted`, `transferred`, `ended`, `hangup`, `ending:<epoch>` |
//! | `sb1:{<CallSid>}:journal` | hash | `<epoch>:<sequence>` → entry |
//! | `sb1:agent:{<ns>/<name>}:reserved`, `:active`, `:waiting` | sorted set | CallSid by expiry |
//! | `sb1:agent:{<ns>/<name>}:pods`, `:capacity` | sorted set, hash | pods by expiry, what each takes |
//! | `sb1:agent:{<ns>/<name>}:caller:<hash>` | sorted set | CallSid by time |
//! | `sb1:agent:{<ns>/<name>}:talked:<day>` | integer | milliseconds |
//! | `sb1:agent:{<ns>/<name>}:calls` | sorted set | CallSid by origin |
//!
//! What must be decided and written at once is a script. Fields and entries this build does not know are left alone.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, TlsCertificates, cmd, pipe};
use call_session::io::Ending;
use call_session::journal::{Entry, Journal};
use call_session::{CallSid, Epoch, Ms};
use sha2::{Digest, Sha256};

use super::{
    AgentKey, Answer, Attachment, CALLER_WINDOW, CallEnd, CallRecord, CallState, Leg, Milestone, RETENTION,
    Renewal, Reservation, SlotRequest, Slots, Standing, Store, StoreError, newest_progress, standing,
};
use crate::clock::UnixMs;
use crate::metrics::CallRefusal;
use crate::secrets::Secret;

/// A healthy Redis in the cluster answers within a millisecond, and one that stalls (a fork, a busy node) within a
/// second: without it limits do not hold. A webhook has to answer within seconds, while the caller hears it ring.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// For one attempt, with its TLS handshake, which goes on while callers go on without: one too short for a pod that is
/// short of CPU would never end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Everything together, a reconnection included: what a caller may wait for the store before going on without.
const DEADLINE: Duration = Duration::from_millis(1500);

/// A store in Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore {
    connection: ConnectionManager,
}

impl RedisStore {
    /// A store at `url` (`redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, or `unix:///path`). It connects
    /// when it is first asked, and again after every loss: a pod starts and answers calls without Redis. Needs a tokio
    /// runtime. Over TLS the public roots are trusted.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub fn new(url: &Secret) -> Result<Self, StoreError> {
        Self::of(Client::open(url.expose()))
    }

    /// The same, but over TLS these certificates (PEM) are trusted, and no others: a Redis has one issuer.
    ///
    /// # Errors
    /// [`StoreError::Url`], also for certificates that cannot be used.
    pub fn trusting(url: &Secret, certificates: Vec<u8>) -> Result<Self, StoreError> {
        if !url.expose().starts_with("rediss://") {
            return Self::new(url);
        }
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(certificates) };
        Self::of(Client::build_with_tls(url.expose(), certificates))
    }

    fn of(client: Result<Client, RedisError>) -> Result<Self, StoreError> {
        let client = client.map_err(|_| StoreError::Url)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50));
        let connection =
            ConnectionManager::new_lazy_with_config(client, config).map_err(|_| StoreError::Url)?;
        Ok(Self { connection })
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        in_time(command.query_async(&mut connection)).await
    }

    async fn ask_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        in_time(pipeline.query_async(&mut connection)).await
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(answer) => answer.map_err(|error| described(&error)),
        Err(_) => Err(StoreError::Unavailable(LATE.to_owned())),
    }
}

const LATE: &str = "not in time";

/// The category only: Redis may quote arguments in its errors.
fn described(error: &RedisError) -> StoreError {
    match error.kind() {
        // Its category is that of a connection that broke, and what to look at is another thing.
        _ if error.is_timeout() => StoreError::Unavailable(LATE.to_owned()),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => StoreError::Malformed("answer"),
        _ => StoreError::Unavailable(error.category().to_owned()),
    }
}

fn call_key(call: &CallSid, part: &str) -> String {
    format!("sb1:{{{call}}}:{part}")
}

fn agent_key(agent: &AgentKey, part: &str) -> String {
    format!("sb1:agent:{{{agent}}}:{part}")
}

/// A number must not stand in a key: keys appear in `MONITOR` and slow logs.
fn caller_key(agent: &AgentKey, caller: &str) -> String {
    let digest = Sha256::digest(caller);
    let hash = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
    agent_key(agent, &format!("caller:{hash}"))
}

fn milliseconds(span: Duration) -> u64 {
    UnixMs::default().plus(span).0
}

/// Reads a call's hash; `None` when it is empty, that is, when the call is unknown.
fn parse_call(fields: &HashMap<String, String>) -> Result<Option<CallState>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let number = |name: &str| -> Result<Option<u64>, StoreError> {
        fields.get(name).map(|text| text.parse().map_err(|_| StoreError::Malformed("number"))).transpose()
    };
    let epoch = |name: &str| -> Result<Option<Epoch>, StoreError> {
        let number = number(name)?.map(u32::try_from).transpose();
        Ok(number.map_err(|_| StoreError::Malformed("epoch"))?.map(Epoch))
    };
    let record = fields
        .get("record")
        .map(|json| serde_json::from_str(json).map_err(|_| StoreError::Malformed("record")))
        .transpose()?;
    let mut state = CallState {
        record,
        leg: epoch("epoch")?
            .map(|epoch| Leg { epoch, owner: fields.get("owner").cloned().unwrap_or_default() }),
        progress: epoch("progress")?,
        hang_up_requested: fields.contains_key("hangup"),
        admitted: number(milestone_field(Milestone::Admitted))?.map(UnixMs),
        transferred: number(milestone_field(Milestone::Transferred))?.map(UnixMs),
        ended: number("ended")?.map(UnixMs),
        ..CallState::default()
    };
    for (name, json) in fields {
        let Some(epoch) = name.strip_prefix("ending:") else { continue };
        let epoch = epoch.parse().map_err(|_| StoreError::Malformed("epoch"))?;
        let ending = serde_json::from_str(json).map_err(|_| StoreError::Malformed("ending"))?;
        state.endings.insert(Epoch(epoch), ending);
    }
    Ok(Some(state))
}

const fn milestone_field(milestone: Milestone) -> &'static str {
    match milestone {
        Milestone::Admitted => "admitted",
        Milestone::Transferred => "transferred",
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Malformed("value of ours"))
}

/// KEYS: reserved, active, pods, capacity, talked, caller, waiting. ARGV: call, now, until, then limits (−1: none): assumed
/// capacity, whether capacity counts, concurrent calls, calls of the caller, talk time; window of the caller's calls;
/// retention; until when the call waits if every pod is full (−1: it does not).
const RESERVE: &str = r"
local call, now, till = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local assumed, bound, concurrent = tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])
local of_caller, talk, window = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now)
for _, pod in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('HDEL', KEYS[4], pod)
  redis.call('ZREM', KEYS[3], pod)
end
if redis.call('ZSCORE', KEYS[1], call) or redis.call('ZSCORE', KEYS[2], call) then return 'held' end
local had_waited = redis.call('ZREM', KEYS[7], call) == 1
if talk >= 0 and tonumber(redis.call('GET', KEYS[5]) or '0') >= talk then return 'daily_minutes' end
if of_caller >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - window)
  if not redis.call('ZSCORE', KEYS[6], call) and redis.call('ZCARD', KEYS[6]) >= of_caller then return 'caller_rate' end
end
local used = redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])
if concurrent >= 0 and used >= concurrent then return 'concurrency' end
local capacity = assumed
local pods = redis.call('ZRANGE', KEYS[3], 0, -1)
if #pods > 0 then
  capacity = 0
  for _, pod in ipairs(pods) do capacity = capacity + tonumber(redis.call('HGET', KEYS[4], pod) or '0') end
end
local before_it = 0
if not had_waited then before_it = redis.call('ZCARD', KEYS[7]) end
if bound and capacity >= 0 and used + before_it >= capacity then
  if tonumber(ARGV[11]) >= 0 then
    redis.call('ZADD', KEYS[7], ARGV[11], call)
    redis.call('PEXPIRE', KEYS[7], ARGV[10])
  end
  return 'full'
end
if of_caller >= 0 then
  redis.call('ZADD', KEYS[6], now, call)
  redis.call('PEXPIRE', KEYS[6], window)
end
redis.call('ZADD', KEYS[1], till, call)
redis.call('PEXPIRE', KEYS[1], ARGV[10])
return 'granted'
";

/// KEYS: call. ARGV: epoch, owner, retention.
const ATTACH: &str = r"
if redis.call('HEXISTS', KEYS[1], 'ended') == 1 then return 'over' end
local newest = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '-1')
local epoch = tonumber(ARGV[1])
if newest > epoch then return 'superseded' end
if newest == epoch then return 'used' end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'owner', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if newest < 0 then return 'first' end
return 'next'
";

/// Raises `progress` of a call. KEYS: call. ARGV: epoch, retention.
const PROGRESS: &str = r"
if tonumber(redis.call('HGET', KEYS[1], 'progress') or '-1') < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'progress', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";

/// Another agent's record, unless a leg was attached meanwhile. KEYS: call. ARGV: record.
const ASSIGN: &str = r"
if redis.call('HEXISTS', KEYS[1], 'epoch') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1])
return 1
";

/// KEYS: call.
const REQUEST_HANG_UP: &str = r"
if redis.call('HEXISTS', KEYS[1], 'record') == 0 or redis.call('HEXISTS', KEYS[1], 'ended') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'hangup', '1')
return 1
";

fn eval(script: &str, keys: &[String]) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys);
    command
}

fn progress(call: &CallSid, epoch: Epoch) -> Cmd {
    let mut command = eval(PROGRESS, &[call_key(call, "call")]);
    command.arg(epoch.0).arg(milliseconds(RETENTION));
    command
}

/// `None` as −1, the scripts' word for "no limit".
fn limit(value: Option<u64>) -> i64 {
    value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

impl Store for RedisStore {
    fn create_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState> {
        Box::pin(async move {
            let key = call_key(&record.call, "call");
            let calls = agent_key(&record.agent, "calls");
            let horizon = record.origin.0.saturating_sub(milliseconds(RETENTION));
            let mut pipeline = pipe();
            pipeline.hset_nx(&key, "record", json(record)?).ignore();
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            pipeline
                .cmd("ZADD")
                .arg(&calls)
                .arg("NX")
                .arg(record.origin.0)
                .arg(record.call.as_str())
                .ignore();
            pipeline.cmd("ZREMRANGEBYSCORE").arg(&calls).arg("-inf").arg(horizon).ignore();
            pipeline.pexpire(&calls, milliseconds(RETENTION) as i64).ignore();
            pipeline.hgetall(&key);
            let (fields,): (HashMap<String, String>,) = self.ask_all(&pipeline).await?;
            parse_call(&fields)?.ok_or(StoreError::Malformed("call"))
        })
    }

    fn assign_call<'a>(&'a self, record: &'a CallRecord) -> Answer<'a, CallState> {
        Box::pin(async move {
            let known = self.create_call(record).await?;
            let (Some(before), None) = (&known.record, &known.leg) else { return Ok(known) };
            if before.agent == record.agent {
                return Ok(known);
            }
            let now = CallRecord { agent: record.agent.clone(), ..before.clone() };
            let key = call_key(&record.call, "call");
            let mut assign = eval(ASSIGN, &[key]);
            assign.arg(json(&now)?);
            if !self.ask::<bool>(&assign).await? {
                return self.load_call(&record.call).await?.ok_or(StoreError::Malformed("call"));
            }
            self.ask::<()>(cmd("ZREM").arg(agent_key(&before.agent, "calls")).arg(record.call.as_str()))
                .await?;
            Ok(CallState { record: Some(now), ..known })
        })
    }

    fn load_call<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Option<CallState>> {
        Box::pin(async move { parse_call(&self.ask(cmd("HGETALL").arg(call_key(call, "call"))).await?) })
    }

    fn list_calls<'a>(&'a self, agent: &'a AgentKey, limit: usize) -> Answer<'a, Vec<CallState>> {
        Box::pin(async move {
            let Some(last) = limit.checked_sub(1) else { return Ok(Vec::new()) };
            let mut newest = cmd("ZREVRANGE");
            newest.arg(agent_key(agent, "calls")).arg(0).arg(last);
            let sids: Vec<String> = self.ask(&newest).await?;
            let mut pipeline = pipe();
            for sid in &sids {
                let sid: CallSid = sid.parse().map_err(|_| StoreError::Malformed("CallSid"))?;
                pipeline.hgetall(call_key(&sid, "call"));
            }
            if sids.is_empty() {
                return Ok(Vec::new());
            }
            let calls: Vec<HashMap<String, String>> = self.ask_all(&pipeline).await?;
            calls.iter().filter_map(|fields| parse_call(fields).transpose()).collect()
        })
    }

    fn note<'a>(&'a self, call: &'a CallSid, milestone: Milestone, now: UnixMs) -> Answer<'a, UnixMs> {
        Box::pin(async move {
            let (key, field) = (call_key(call, "call"), milestone_field(milestone));
            let mut pipeline = pipe();
            pipeline.hset_nx(&key, field, now.0).ignore();
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            pipeline.hget(&key, field);
            let (first,): (u64,) = self.ask_all(&pipeline).await?;
            Ok(UnixMs(first))
        })
    }

    fn end_call<'a>(&'a self, call: &'a CallSid, now: UnixMs) -> Answer<'a, CallEnd> {
        Box::pin(async move {
            let key = call_key(call, "call");
            let mut pipeline = pipe();
            pipeline.hset_nx(&key, "ended", now.0);
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            pipeline.hgetall(&key);
            let (is_first, fields): (bool, HashMap<String, String>) = self.ask_all(&pipeline).await?;
            Ok(CallEnd { is_first, known: parse_call(&fields)?.unwrap_or_default() })
        })
    }

    fn request_hang_up<'a>(&'a self, call: &'a CallSid) -> Answer<'a, bool> {
        Box::pin(async move { self.ask(&eval(REQUEST_HANG_UP, &[call_key(call, "call")])).await })
    }

    fn reserve_slot<'a>(&'a self, request: &'a SlotRequest<'a>) -> Answer<'a, Reservation> {
        Box::pin(async move {
            let SlotRequest { agent, call, now, until, waits_until, limits } = request;
            let caller = limits.calls_of_caller.as_ref();
            let keys = [
                agent_key(agent, "reserved"),
                agent_key(agent, "active"),
                agent_key(agent, "pods"),
                agent_key(agent, "capacity"),
                agent_key(agent, &format!("talked:{}", now.day())),
                caller_key(agent, caller.map_or("", |(caller, _)| caller.expose())),
                agent_key(agent, "waiting"),
            ];
            let mut command = eval(RESERVE, &keys);
            command.arg(call.as_str()).arg(now.0).arg(until.0);
            command.arg(limit(limits.assumed_capacity.map(u64::from)));
            command.arg(u8::from(limits.is_bound_by_capacity));
            command.arg(limit(limits.concurrent_calls.map(u64::from)));
            command.arg(limit(caller.map(|(_, most)| u64::from(*most))));
            command.arg(limit(limits.talk_time_per_day.map(|time| time.0)));
            command.arg(milliseconds(CALLER_WINDOW)).arg(milliseconds(RETENTION));
            command.arg(limit(waits_until.map(|until| until.0)));
            let word: String = self.ask(&command).await?;
            Ok(match word.as_str() {
                "granted" => Reservation::Granted,
                "held" => Reservation::Held,
                "daily_minutes" => Reservation::Refused(CallRefusal::DailyMinutes),
                "caller_rate" => Reservation::Refused(CallRefusal::CallerRate),
                "concurrency" => Reservation::Refused(CallRefusal::Concurrency),
                "full" => Reservation::Refused(CallRefusal::Full),
                _ => return Err(StoreError::Malformed("answer")),
            })
        })
    }

    fn claim_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid, until: UnixMs) -> Answer<'a, ()> {
        Box::pin(async move {
            let active = agent_key(agent, "active");
            let mut pipeline = pipe();
            pipeline.atomic();
            pipeline.zrem(agent_key(agent, "reserved"), call.as_str()).ignore();
            pipeline.zrem(agent_key(agent, "waiting"), call.as_str()).ignore();
            pipeline.zadd(&active, call.as_str(), until.0).ignore();
            pipeline.pexpire(&active, milliseconds(RETENTION) as i64).ignore();
            self.ask_all(&pipeline).await
        })
    }

    fn release_slot<'a>(&'a self, agent: &'a AgentKey, call: &'a CallSid) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut pipeline = pipe();
            for key in ["reserved", "waiting", "active"] {
                pipeline.zrem(agent_key(agent, key), call.as_str()).ignore();
            }
            self.ask_all(&pipeline).await
        })
    }

    fn count_slots<'a>(&'a self, agent: &'a AgentKey, now: UnixMs) -> Answer<'a, Slots> {
        Box::pin(async move {
            let after = format!("({}", now.0);
            let mut pipeline = pipe();
            for key in ["reserved", "waiting", "active"] {
                pipeline.zcount(agent_key(agent, key), &after, "+inf");
            }
            let (reserved, waiting, active) = self.ask_all(&pipeline).await?;
            Ok(Slots { reserved, waiting, active })
        })
    }

    fn add_talk_time<'a>(&'a self, agent: &'a AgentKey, now: UnixMs, time: Ms) -> Answer<'a, ()> {
        Box::pin(async move {
            let key = agent_key(agent, &format!("talked:{}", now.day()));
            let mut pipeline = pipe();
            pipeline.cmd("INCRBY").arg(&key).arg(time.0).ignore();
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            self.ask_all(&pipeline).await
        })
    }

    fn attach<'a>(&'a self, call: &'a CallSid, epoch: Epoch, owner: &'a str) -> Answer<'a, Attachment> {
        Box::pin(async move {
            let mut command = eval(ATTACH, &[call_key(call, "call")]);
            command.arg(epoch.0).arg(owner).arg(milliseconds(RETENTION));
            let word: String = self.ask(&command).await?;
            Ok(match word.as_str() {
                "first" => Attachment::First,
                "next" => Attachment::Next,
                "used" => Attachment::Used,
                "superseded" => Attachment::Superseded,
                "over" => Attachment::Over,
                _ => return Err(StoreError::Malformed("answer")),
            })
        })
    }

    fn renew<'a>(&'a self, renewal: &'a Renewal<'a>) -> Answer<'a, Vec<Standing>> {
        Box::pin(async move {
            let Renewal { agent, owner, capacity, now: _, until, legs } = renewal;
            let (pods, capacities) = (agent_key(agent, "pods"), agent_key(agent, "capacity"));
            let active = agent_key(agent, "active");
            let mut pipeline = pipe();
            pipeline.zadd(&pods, owner, until.0).ignore();
            pipeline.hset(&capacities, owner, capacity).ignore();
            for key in [&pods, &capacities, &active] {
                pipeline.pexpire(key, milliseconds(RETENTION) as i64).ignore();
            }
            for leg in *legs {
                pipeline.zadd(&active, leg.call.as_str(), until.0).ignore();
                if leg.has_progressed {
                    pipeline.add_command(progress(&leg.call, leg.epoch)).ignore();
                }
                let fields = ["epoch", "hangup", "ended"];
                pipeline.cmd("HMGET").arg(call_key(&leg.call, "call")).arg(&fields);
            }
            let known: Vec<(Option<u32>, Option<String>, Option<u64>)> = self.ask_all(&pipeline).await?;
            let stand = |(leg, (newest, hang_up, ended)): (&super::RenewedLeg, _)| {
                let (newest, hang_up, ended): (Option<u32>, Option<String>, Option<u64>) =
                    (newest, hang_up, ended);
                standing(leg.epoch, newest.map(Epoch), hang_up.is_some(), ended.is_some())
            };
            Ok(legs.iter().zip(known).map(stand).collect())
        })
    }

    fn record_ending<'a>(&'a self, call: &'a CallSid, epoch: Epoch, ending: &'a Ending) -> Answer<'a, ()> {
        Box::pin(async move {
            let key = call_key(call, "call");
            let mut pipeline = pipe();
            pipeline.hset_nx(&key, format!("ending:{}", epoch.0), json(ending)?).ignore();
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            self.ask_all(&pipeline).await
        })
    }

    fn append_journal<'a>(&'a self, call: &'a CallSid, entries: &'a [Entry]) -> Answer<'a, ()> {
        Box::pin(async move {
            let key = call_key(call, "journal");
            let mut pipeline = pipe();
            for entry in entries {
                let field = format!("{}:{}", entry.epoch.0, entry.sequence);
                pipeline.hset_nx(&key, field, json(entry)?).ignore();
            }
            pipeline.pexpire(&key, milliseconds(RETENTION) as i64).ignore();
            if let Some(epoch) = newest_progress(entries) {
                pipeline.add_command(progress(call, epoch)).ignore();
            }
            self.ask_all(&pipeline).await
        })
    }

    fn load_journal<'a>(&'a self, call: &'a CallSid) -> Answer<'a, Journal> {
        Box::pin(async move {
            let entries: Vec<String> = self.ask(cmd("HVALS").arg(call_key(call, "journal"))).await?;
            let mut entries = entries
                .iter()
                .map(|json| {
                    serde_json::from_str::<Entry>(json).map_err(|_| StoreError::Malformed("journal entry"))
                })
                .collect::<Result<Vec<_>, _>>()?;
            entries.sort_by_key(|entry| (entry.epoch, entry.sequence));
            Ok(Journal(entries))
        })
    }
}
