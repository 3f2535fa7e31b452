use super::*;
use proptest::prelude::*;

fn host_port(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}

fn bulk(text: &str) -> Frame {
    Frame::BulkString(text.as_bytes().to_vec())
}

/// `[host, port, id, more]`, as Redis 7 has it.
fn node(host: Frame, port: i64, id: &str, more: &[&str]) -> Frame {
    let more = more.iter().map(|text| bulk(text)).collect();
    Frame::Array(vec![host, Frame::Integer(port), bulk(id), Frame::Array(more)])
}

fn stretch(first: i64, last: i64, nodes: &[Frame]) -> Frame {
    Frame::Array([&[Frame::Integer(first), Frame::Integer(last)], nodes].concat())
}

/// What the node at `asked:7000` says.
fn read(stretches: &[Frame]) -> Result<Slots, Wrong> {
    Slots::read(Frame::Array(stretches.to_vec()), &host_port("asked", 7000))
}

fn owner(slots: &Slots, number: u16) -> String {
    let owner = slots.owner(Slot::new(number).unwrap());
    owner.map_or("nobody".to_owned(), |owner| slots.nodes()[usize::from(owner)].addr.to_string())
}

#[test]
fn each_stretch_names_its_node() {
    let b = node(bulk("10.0.0.1"), 7001, "b", &["ip", "10.0.0.1", "hostname", "b.internal"]);
    let replica = node(bulk("10.0.0.9"), 7009, "r", &[]);
    let slots = read(&[
        stretch(0, 100, &[b.clone(), replica.clone()]),
        stretch(101, 101, &[node(Frame::Null, 7002, "a", &[])]),
        stretch(103, 103, &[node(bulk(""), 7002, "a", &["hostname", ""])]),
        stretch(104, 104, &[node(bulk("?"), 7003, "c", &[])]),
        stretch(16383, 16383, &[b, replica]),
    ])
    .unwrap();
    let nodes: Vec<_> = slots.nodes().iter().map(|node| (node.id.as_str(), node.name.as_deref())).collect();
    assert_eq!(nodes, [("a", None), ("b", Some("b.internal"))]);
    assert_eq!(slots.replicas(), [host_port("10.0.0.9", 7009)]);
    let owners = [0, 100, 101, 102, 103, 104, 16383].map(|number| owner(&slots, number));
    let (a, b, nobody) = ("asked:7002", "10.0.0.1:7001", "nobody");
    assert_eq!(owners, [b, b, a, nobody, a, nobody, b]);
}

#[test]
fn replicas_serve_nothing() {
    let of =
        |port, replica| read(&[stretch(0, 9, &[node(bulk("h"), port, "a", &[]), node(bulk("h"), replica, "r", &[])])]);
    assert!(of(1, 2).unwrap().serve_alike(&of(1, 3).unwrap()));
    assert!(!of(1, 2).unwrap().serve_alike(&of(3, 2).unwrap()), "it has moved");
}

#[test]
fn a_node_of_redis_3_has_no_id() {
    let of = |port| Frame::Array(vec![bulk("h"), Frame::Integer(port)]);
    let slots = read(&[stretch(0, 9, &[of(2)]), stretch(10, 16383, &[of(1), of(3)])]).unwrap();
    assert_eq!([owner(&slots, 9), owner(&slots, 10)], ["h:2", "h:1"]);
}

#[test]
fn what_is_no_slot_table_is_refused() {
    let h = || node(bulk("h"), 1, "a", &[]);
    for wrong in [
        stretch(0, 16384, &[h()]),
        stretch(-1, 5, &[h()]),
        stretch(6, 5, &[h()]),
        stretch(0, 5, &[]),
        stretch(0, 5, &[bulk("h")]),
        stretch(0, 5, &[node(bulk("h"), 0, "a", &[])]),
        stretch(0, 5, &[node(Frame::Integer(5), 1, "a", &[])]),
        stretch(0, 5, &[node(bulk("no host"), 1, "a", &[])]),
        bulk("h"),
        Frame::Array(vec![]),
    ] {
        assert_eq!(read(std::slice::from_ref(&wrong)), Err(Wrong::Unexpected), "{wrong:?}");
    }
    assert_eq!(Slots::read(bulk("OK"), &host_port("h", 1)), Err(Wrong::Unexpected));
    assert_eq!(owner(&read(&[]).unwrap(), 0), "nobody");
    assert_eq!(owner(&Slots::of_one(host_port("h", 1)), 16383), "h:1");
}

#[test]
fn nodes_are_bounded() {
    let nodes = |count: i64| {
        let stretches = (0..count).map(|at| stretch(at, at, &[node(bulk("h"), at + 1, &at.to_string(), &[])]));
        read(&stretches.collect::<Vec<_>>())
    };
    assert_eq!(nodes(MAX_NODES as i64).unwrap().nodes().len(), MAX_NODES);
    assert_eq!(nodes(MAX_NODES as i64 + 1), Err(Wrong::TooMuch));
    let replicas: Vec<_> = (1..=2 * MAX_NODES as i64).map(|port| node(bulk("h"), port, "r", &[])).collect();
    assert_eq!(read(&[stretch(0, 5, &replicas)]).unwrap().replicas().len(), MAX_NODES);
}

/// An answer in which the node of this id serves all.
fn answer(id: &str, seen_at: &str, epoch: u64, state: &str) -> Answer {
    let slots = Frame::Array(vec![stretch(0, 16383, &[node(bulk(""), 1, id, &[])])]);
    let info = bulk(&format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n"));
    Answer::read(slots, Some(&info), &host_port(seen_at, 1)).unwrap()
}

fn chosen(answers: &[Answer]) -> Option<(String, String)> {
    let answer = choose(answers.to_vec())?;
    answer.slots.nodes().first().map(|node| (node.id.clone(), node.addr.host.clone()))
}

#[test]
fn the_answer_to_believe_is_that_of_the_most_or_else_the_newest() {
    let is = |id: &str, seen_at: &str| Some((id.to_owned(), seen_at.to_owned()));
    assert_eq!(chosen(&[]), None);
    let (old, new) = (answer("old", "x", 5, "ok"), answer("new", "y", 6, "ok"));
    assert_eq!(chosen(&[old.clone(), new.clone()]), is("new", "y"));
    assert_eq!(chosen(&[new.clone(), old.clone()]), is("new", "y"));
    let same = answer("old", "z", 5, "ok");
    assert_eq!(chosen(&[new.clone(), old.clone(), same.clone()]), is("old", "x"), "most say so, each as it sees it");
    let cut_off = [answer("old", "x", 9, "fail"), answer("old", "z", 9, "fail"), new];
    assert_eq!(chosen(&cut_off), is("new", "y"), "a replica that is cut off counts epochs up");
    assert_eq!(chosen(&cut_off[..2]), is("old", "x"), "where no node finds the cluster in order");
    let silent = Answer { epoch: 0, ..old };
    assert_eq!(chosen(&[silent, same]), is("old", "z"));
}

proptest! {
    /// The same stretches in any order are the same table, and name for each slot the node of its last stretch.
    #[test]
    fn the_order_of_stretches_does_not_matter(
        owners in proptest::collection::vec(0..5_i64, 1..40),
        seed in any::<u64>(),
    ) {
        let stretch_of = |(at, owner): (i64, &i64)| {
            stretch(at * 400, at * 400 + 399, &[node(bulk("h"), *owner + 1, &format!("id{owner}"), &[])])
        };
        let mut stretches: Vec<_> = (0..).zip(&owners).map(stretch_of).collect();
        let slots = read(&stretches).unwrap();
        let count = stretches.len();
        stretches.rotate_left(usize::try_from(seed % count as u64).unwrap());
        prop_assert_eq!(&read(&stretches).unwrap(), &slots);
        for (at, expected) in owners.iter().enumerate() {
            let number = u16::try_from(at * 400 + 7).unwrap();
            prop_assert_eq!(owner(&slots, number), format!("h:{}", expected + 1));
        }
        if count < 40 {
            prop_assert_eq!(owner(&slots, 16383), "nobody");
        }
    }
}
