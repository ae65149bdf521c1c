//! Several watches of one kind as one: pure.
//!
//! A list replaces what is known of its own namespaces only, and after the first lists it is told as the difference: an
//! object that is new or changed, and one that went while the watch was broken. kube's own store takes a list over
//! silently, so that nobody would learn of a child that was deleted meanwhile.
//!
//! A namespace that cannot be read is empty until it can: the others do not wait for a tenant who left with all rights.

use std::collections::HashMap;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

/// What the watches have told so far.
pub(super) struct Merge<K: Resource<DynamicType = ()>> {
    sources: Vec<Source<K>>,
}

struct Source<K: Resource<DynamicType = ()>> {
    /// What it watches; `None` is everything.
    namespace: Option<String>,
    state: State<K>,
}

/// Where a watch is.
enum State<K: Resource<DynamicType = ()>> {
    /// Its first list is not complete.
    First(HashMap<ObjectRef<K>, K>),
    /// Its first list is complete, another watch's is not.
    Waiting(HashMap<ObjectRef<K>, K>),
    /// All first lists were passed on.
    Following,
    /// It lists anew.
    Again(HashMap<ObjectRef<K>, K>),
}

impl<K> Merge<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// Watches of these namespaces, by index.
    pub(super) fn new(namespaces: impl IntoIterator<Item = Option<String>>) -> Self {
        let sources = namespaces.into_iter();
        Self {
            sources: sources
                .map(|namespace| Source { namespace, state: State::First(HashMap::new()) })
                .collect(),
        }
    }

    /// What a watch's event means for `known`, which has every event that was returned before.
    pub(super) fn handle(&mut self, source: usize, event: Event<K>, known: &Store<K>) -> Vec<Event<K>> {
        let Some(Source { namespace, state }) = self.sources.get_mut(source) else { return Vec::new() };
        match (event, &mut *state) {
            (Event::Init, State::First(_) | State::Waiting(_)) => *state = State::First(HashMap::new()),
            (Event::Init, State::Following | State::Again(_)) => *state = State::Again(HashMap::new()),
            (
                Event::InitApply(object) | Event::Apply(object),
                State::First(listed) | State::Waiting(listed) | State::Again(listed),
            ) => drop(listed.insert(ObjectRef::from_obj(&object), object)),
            (Event::Delete(object), State::First(listed) | State::Waiting(listed) | State::Again(listed)) => {
                listed.remove(&ObjectRef::from_obj(&object));
            }
            (Event::InitApply(object) | Event::Apply(object), State::Following) => {
                return vec![Event::Apply(object)];
            }
            (Event::Delete(object), State::Following) => return vec![Event::Delete(object)],
            (Event::InitDone, State::First(listed)) => {
                *state = State::Waiting(std::mem::take(listed));
                return self.begin();
            }
            (Event::InitDone, State::Again(listed)) => {
                let listed = std::mem::take(listed);
                *state = State::Following;
                return difference(namespace.as_deref(), listed, known);
            }
            (Event::InitDone, State::Waiting(_) | State::Following) => {}
        }
        Vec::new()
    }

    /// What it means that a watch was refused its list. Where everything is watched nothing can be known without it.
    pub(super) fn refuse(&mut self, source: usize) -> Vec<Event<K>> {
        match self.sources.get_mut(source) {
            Some(Source { namespace: Some(_), state: state @ State::First(_) }) => {
                *state = State::Waiting(HashMap::new());
                self.begin()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// All first lists as one, once the last is complete.
    fn begin(&mut self) -> Vec<Event<K>> {
        if !self.sources.iter().all(|source| matches!(source.state, State::Waiting(_))) {
            return Vec::new();
        }
        let mut events = vec![Event::Init];
        for source in &mut self.sources {
            if let State::Waiting(listed) = std::mem::replace(&mut source.state, State::Following) {
                events.extend(listed.into_values().map(Event::InitApply));
            }
        }
        events.push(Event::InitDone);
        events
    }
}

/// What a complete list changes. An object of the version that is known is not told again.
fn difference<K>(
    namespace: Option<&str>,
    mut listed: HashMap<ObjectRef<K>, K>,
    known: &Store<K>,
) -> Vec<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut events = Vec::new();
    for before in known.state() {
        if namespace.is_some() && before.namespace().as_deref() != namespace {
            continue;
        }
        match listed.get(&ObjectRef::from_obj(&*before)) {
            None => events.push(Event::Delete((*before).clone())),
            Some(now) if now.uid() == before.uid() && now.resource_version() == before.resource_version() => {
                listed.remove(&ObjectRef::from_obj(&*before));
            }
            Some(_) => {}
        }
    }
    events.extend(listed.into_values().map(Event::Apply));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::store::Writer;
    use serde_json::json;

    fn object(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let metadata = json!({"namespace": namespace, "name": name, "uid": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// Feeds events through, and tells them as words.
    struct Run {
        merge: Merge<ConfigMap>,
        writer: Writer<ConfigMap>,
    }

    impl Run {
        fn of(namespaces: &[Option<&str>]) -> Self {
            let merge = Merge::new(namespaces.iter().map(|n| n.map(str::to_owned)));
            Self { merge, writer: Writer::default() }
        }

        fn handle(&mut self, source: usize, event: Event<ConfigMap>) -> Vec<String> {
            let events = self.merge.handle(source, event, &self.writer.as_reader());
            self.tell(events)
        }

        fn refuse(&mut self, source: usize) -> Vec<String> {
            let events = self.merge.refuse(source);
            self.tell(events)
        }

        fn tell(&mut self, events: Vec<Event<ConfigMap>>) -> Vec<String> {
            let mut words = Vec::new();
            for event in events {
                self.writer.apply_watcher_event(&event);
                words.push(match event {
                    Event::Init => "init".to_owned(),
                    Event::InitApply(o) => format!("init {}", o.name_any()),
                    Event::InitDone => "done".to_owned(),
                    Event::Apply(o) => format!("apply {}", o.name_any()),
                    Event::Delete(o) => format!("delete {}", o.name_any()),
                });
            }
            words.sort();
            words
        }

        fn list(&mut self, source: usize, objects: &[ConfigMap]) -> Vec<String> {
            assert_eq!(self.handle(source, Event::Init), [""; 0]);
            for object in objects {
                assert_eq!(self.handle(source, Event::InitApply(object.clone())), [""; 0]);
            }
            self.handle(source, Event::InitDone)
        }

        fn known(&self) -> Vec<String> {
            let mut names: Vec<_> = self.writer.as_reader().state().iter().map(|o| o.name_any()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn the_first_lists_of_all_namespaces_arrive_as_one() {
        let mut run = Run::of(&[Some("a"), Some("b")]);
        assert_eq!(run.list(0, &[object("a", "one", "1"), object("a", "two", "1")]), [""; 0]);
        assert_eq!(run.handle(0, Event::Delete(object("a", "two", "2"))), [""; 0]);
        assert_eq!(run.list(1, &[object("b", "three", "1")]), ["done", "init", "init one", "init three"]);
        assert_eq!(run.known(), ["one", "three"]);
    }

    #[test]
    fn after_that_changes_pass_at_once() {
        let mut run = Run::of(&[None]);
        run.list(0, &[object("a", "one", "1")]);
        assert_eq!(run.handle(0, Event::Apply(object("a", "two", "2"))), ["apply two"]);
        assert_eq!(run.handle(0, Event::Delete(object("a", "one", "3"))), ["delete one"]);
        assert_eq!(run.known(), ["two"]);
    }

    #[test]
    fn a_list_after_a_gap_tells_what_changed_and_what_went() {
        let mut run = Run::of(&[None]);
        run.list(0, &[object("a", "same", "1"), object("a", "changed", "1"), object("a", "gone", "1")]);
        let told =
            run.list(0, &[object("a", "same", "1"), object("a", "changed", "2"), object("a", "new", "2")]);
        assert_eq!(told, ["apply changed", "apply new", "delete gone"]);
        assert_eq!(run.known(), ["changed", "new", "same"]);
    }

    #[test]
    fn a_namespace_that_may_not_be_read_is_empty_until_it_may() {
        let mut run = Run::of(&[Some("a"), Some("b")]);
        assert_eq!(run.list(0, &[object("a", "one", "1")]), [""; 0]);
        run.handle(1, Event::Init);
        assert_eq!(run.refuse(1), ["done", "init", "init one"]);
        run.handle(1, Event::Init);
        assert_eq!(run.refuse(1), [""; 0]);
        assert_eq!(run.handle(0, Event::Apply(object("a", "two", "2"))), ["apply two"]);
        assert_eq!(run.list(1, &[object("b", "three", "3")]), ["apply three"]);
        // What was known stays known: rights that are away for a moment are no deletion.
        run.handle(1, Event::Init);
        assert_eq!(run.refuse(1), [""; 0]);
        assert_eq!(run.known(), ["one", "three", "two"]);
    }

    #[test]
    fn who_may_read_nothing_at_all_knows_nothing() {
        let mut run = Run::of(&[None]);
        run.handle(0, Event::Init);
        assert_eq!(run.refuse(0), [""; 0]);
        assert_eq!(run.list(0, &[object("a", "one", "1")]), ["done", "init", "init one"]);
    }

    #[test]
    fn a_list_of_one_namespace_leaves_the_others_alone() {
        let mut run = Run::of(&[Some("a"), Some("b")]);
        run.list(0, &[object("a", "one", "1")]);
        run.list(1, &[object("b", "two", "1")]);
        assert_eq!(run.list(0, &[]), ["delete one"]);
        assert_eq!(run.known(), ["two"]);
    }

    #[test]
    fn a_list_that_breaks_off_and_begins_anew_counts_once() {
        let mut run = Run::of(&[None]);
        run.list(0, &[object("a", "one", "1")]);
        run.handle(0, Event::Init);
        run.handle(0, Event::InitApply(object("a", "half", "1")));
        assert_eq!(run.list(0, &[object("a", "one", "1")]), [""; 0]);
        assert_eq!(run.known(), ["one"]);
    }
}
