//! Small sources in each language: which calls are told, and which are not.

use super::*;

fn told(language: Language, text: &str, beside: &Beside) -> Vec<String> {
    let grammars = Grammars::of(language).unwrap();
    let name = match language {
        Language::Nodejs if text.starts_with("// ts") => "index.ts",
        _ => grammars.0[0].0,
    };
    let mut parser = Parser::new();
    let tree = parse(&mut parser, &grammars.of_file(name), text, Instant::now() + TIME_MAX).unwrap();
    let told = calls(language, &tree, text, beside);
    told.into_iter().map(|call| format!("{} {:?} {}", call.line, call.kind, call.what)).collect()
}

fn check(language: Language, cases: &[(&str, &[&str])]) {
    for (text, expect) in cases {
        assert_eq!(told(language, text, &Beside::default()), *expect, "{text}");
    }
}

#[test]
fn python_is_looked_at() {
    check(
        Language::Python,
        &[
            ("import uuid\nID = uuid.uuid4()\n", &["2 Random uuid.uuid4()"]),
            ("from uuid import uuid4 as u\nID = str(u())\n", &["2 Random u()"]),
            ("import uuid as ids\nclass A:\n    KEY: str = ids.uuid1().hex\n", &["3 Random ids.uuid1()"]),
            ("from uuid import *\nID = uuid4()\n", &["2 Random uuid4()"]),
            (
                "import random\nif True:\n    try:\n        N = random.choice([1])\n    except E:\n        M = random.random()\n",
                &["4 Random random.choice()", "6 Random random.random()"],
            ),
            ("import random\nrng = random.Random()\nN = rng.randint(1, 2)\n", &["3 Random rng.randint()"]),
            ("import random\nN = random.SystemRandom().choice('ab')\n", &["2 Random random.SystemRandom().choice()"]),
            ("import secrets, os\nA = secrets.token_hex(8).upper()\nB = os.urandom(8)\n", &["2 Random secrets.token_hex()", "3 Random os.urandom()"]),
            (
                "import numpy as np\nW = np.random.rand(3)\nX = np.random.default_rng().integers(5)\n",
                &["2 Random np.random.rand()", "3 Random np.random.default_rng().integers()"],
            ),
            ("import time\ndef f(now=time.time()):\n    return now\n", &["2 Clock time.time()"]),
            ("import time\n@decorated(time.monotonic())\ndef f():\n    return time.time()\n", &["2 Clock time.monotonic()"]),
            ("import datetime\nSTARTED = datetime.datetime.now(datetime.timezone.utc)\n", &["2 Clock datetime.datetime.now()"]),
            (
                "from datetime import datetime as d, date\nA = d.utcnow().isoformat()\nB = [date.today() for _ in x]\n",
                &["2 Clock d.utcnow()", "3 Clock date.today()"],
            ),
            ("from google.cloud import storage\nclient = storage.Client(project='p')\n", &["2 Client storage.Client()"]),
            ("import google.cloud.firestore\ndb = google.cloud.firestore.Client()\n", &["2 Client google.cloud.firestore.Client()"]),
            ("from google.cloud import pubsub_v1 as ps\np = ps.PublisherClient()\n", &["2 Client ps.PublisherClient()"]),
            ("import redis, requests\nr = redis.Redis(host='h')\ns = requests.Session()\n", &["2 Client redis.Redis()", "3 Client requests.Session()"]),
            ("from sqlalchemy import create_engine\nwith open('x') as f:\n    e = create_engine(f.read())\n", &["3 Client create_engine()"]),
            ("import psycopg\nfor h in hosts:\n    pool.append(psycopg.connect(h))\n", &["3 Client psycopg.connect()"]),
            ("import uuid\nif (x := uuid.uuid4()): pass\n", &["2 Random uuid.uuid4()"]),
            // Nothing of these is made while loading, or by what it looks like.
            ("import uuid\ndef f():\n    return uuid.uuid4()\n", &[]),
            ("import uuid\nasync def f():\n    x = uuid.uuid4()\nclass A:\n    def g(self):\n        return uuid.uuid4()\n", &[]),
            ("import uuid\nf = lambda: uuid.uuid4()\n", &[]),
            ("import uuid\nmake = uuid.uuid4\nfield(default_factory=uuid.uuid4)\n", &[]),
            ("import uuid\n# uuid.uuid4()\nS = 'uuid.uuid4()'\n\"\"\"uuid.uuid4()\"\"\"\n", &[]),
            ("def uuid4(): return 1\nID = uuid4()\n", &[]),
            ("from uuid import uuid4\ndef uuid4(): return 1\nID = uuid4()\n", &[]),
            ("import time\ntime = Fake()\nT = time.time()\n", &[]),
            ("from .uuid import uuid4\nID = uuid4()\n", &[]),
            ("import uuid\nID = uuid.uuid5(NS, 'x')\n", &[]),
            ("import random\nrandom.seed(1)\nrng = random.Random(7)\nN = rng.random()\n", &[]),
            ("import time\nif __name__ == '__main__':\n    t = time.time()\n", &[]),
            ("import time\ntime.sleep(1)\n", &[]),
            ("def broken(:\n  ((((\n", &[]),
        ],
    );
    let own = Beside { top: ["secrets".to_owned()].into(), beside: BTreeSet::new() };
    assert_eq!(told(Language::Python, "import secrets\nA = secrets.token_hex()\n", &own), [""; 0]);
}

#[test]
fn nodejs_is_looked_at() {
    check(
        Language::Nodejs,
        &[
            ("const {randomUUID: r} = require('crypto');\nconst id = r();\n", &["2 Random r()"]),
            ("const crypto = require('node:crypto');\nconst k = crypto.randomBytes(8).toString('hex');\n", &["2 Random crypto.randomBytes()"]),
            ("import { v4 as uuid } from 'uuid';\nexport const id = uuid();\n", &["2 Random uuid()"]),
            ("import * as u from 'uuid';\nconst id = u.v1();\n", &["2 Random u.v1()"]),
            ("const id = require('uuid').v4();\n", &["1 Random require('uuid').v4()"]),
            ("import { nanoid } from 'nanoid';\nif (x) { try { y = nanoid(); } catch (e) {} }\n", &["2 Random nanoid()"]),
            ("const n = Math.random();\nconst id = crypto.randomUUID();\n", &["1 Random Math.random()", "2 Random crypto.randomUUID()"]),
            ("const id = globalThis.crypto.randomUUID();\n", &["1 Random globalThis.crypto.randomUUID()"]),
            ("const t = Date.now(), d = new Date(), e = new Date;\n", &["1 Clock Date.now()", "1 Clock new Date()"]),
            ("const t = process.hrtime.bigint();\nconst p = performance.now();\n", &["1 Clock process.hrtime.bigint()", "2 Clock performance.now()"]),
            ("class A { static id = Math.random(); static { this.t = Date.now(); } }\n", &["1 Clock Date.now()", "1 Random Math.random()"]),
            ("(async () => { const t = Date.now(); })();\n", &["1 Clock Date.now()"]),
            ("const {Storage} = require('@google-cloud/storage');\nconst s = new Storage();\n", &["2 Client new Storage()"]),
            ("import * as ps from '@google-cloud/pubsub';\nconst c = new ps.v1.PublisherClient({});\n", &["2 Client new ps.v1.PublisherClient()"]),
            (
                "import Redis from 'ioredis';\nimport pg from 'pg';\nconst r = new Redis();\nconst p = new pg.Pool();\n",
                &["3 Client new Redis()", "4 Client new pg.Pool()"],
            ),
            ("const { MongoClient } = await import('mongodb');\nlet c;\nc = new MongoClient(u);\n", &["3 Client new MongoClient()"]),
            ("const redis = require('redis');\nmodule.exports = { c: redis.createClient() };\n", &["2 Client redis.createClient()"]),
            ("const now = Date.now;\nconst t = now();\n", &["2 Clock now()"]),
            ("// ts\nimport { randomUUID } from 'crypto';\nexport const id: string = randomUUID() as string;\nenum E { A = 1 }\n", &["3 Random randomUUID()"]),
            ("// ts\nimport c = require('crypto');\nclass A { private static readonly k: Buffer = c.randomBytes(4); }\n", &["3 Random c.randomBytes()"]),
            // Nothing of these.
            ("function f() { return Math.random(); }\nconst g = () => Date.now();\n", &[]),
            ("const ff = require('@google-cloud/functions-framework');\nff.http('f', (req, res) => { res.send(new Date()); });\n", &[]),
            ("class A { id = Math.random(); m() { return Date.now(); } }\n", &[]),
            ("const d = new Date(2020, 1, 1);\nconst e = new Date('2020-01-01');\n", &[]),
            ("// Math.random()\nconst s = 'Math.random()' + `Date.now()`;\n", &[]),
            ("function nanoid() { return 1; }\nconst id = nanoid();\n", &[]),
            ("const Math = { random: () => 4 };\nconst n = Math.random();\n", &[]),
            ("import { v4 } from './uuid';\nconst id = v4();\n", &[]),
            ("import { v5 } from 'uuid';\nconst id = v5('x', NS);\n", &[]),
            ("const http = require('http');\nhttp.createServer(() => {}).listen(process.env.PORT);\n", &[]),
            ("const {Storage} = require('@google-cloud/storage');\nlet s;\nconst get = () => s ??= new Storage();\n", &[]),
            ("exports.now = Date.now;\n", &[]),
        ],
    );
}

#[test]
fn go_is_looked_at() {
    check(
        Language::Go,
        &[
            ("package p\nimport \"github.com/google/uuid\"\nvar id = uuid.NewString()\n", &["3 Random uuid.NewString()"]),
            ("package p\nimport u \"github.com/google/uuid\"\nvar (\n\ta = u.Must(u.NewRandom())\n)\n", &["4 Random u.NewRandom()"]),
            ("package p\nimport \"math/rand/v2\"\nvar n = rand.IntN(6)\n", &["3 Random rand.IntN()"]),
            (
                "package p\nimport \"crypto/rand\"\nfunc init() {\n\tif _, err := rand.Read(key); err != nil {\n\t\tpanic(err)\n\t}\n}\n",
                &["4 Random rand.Read()"],
            ),
            ("package p\nimport \"time\"\nvar started = time.Now().UTC()\n", &["3 Clock time.Now()"]),
            ("package p\nimport . \"time\"\nvar started = Now()\n", &["3 Clock Now()"]),
            ("package p\nimport (\n\t\"math/rand\"\n\t\"time\"\n)\nvar r = rand.New(rand.NewSource(time.Now().UnixNano()))\n", &["6 Clock time.Now()"]),
            ("package p\nimport \"time\"\nvar t = func() time.Time { return time.Now() }()\n", &["3 Clock time.Now()"]),
            ("package p\nimport \"cloud.google.com/go/storage\"\nvar c, err = storage.NewClient(ctx)\n", &["3 Client storage.NewClient()"]),
            (
                "package p\nimport fs \"cloud.google.com/go/firestore\"\nfunc init() {\n\tclient, err = fs.NewClientWithDatabase(ctx, \"p\", \"d\")\n}\n",
                &["4 Client fs.NewClientWithDatabase()"],
            ),
            ("package p\nimport \"github.com/redis/go-redis/v9\"\nvar r = redis.NewClient(nil)\n", &["3 Client redis.NewClient()"]),
            ("package p\nimport \"database/sql\"\nfunc init() { db, _ = sql.Open(\"pgx\", dsn) }\n", &["3 Client sql.Open()"]),
            // Nothing of these.
            ("package p\nimport \"time\"\nfunc F() time.Time { return time.Now() }\n", &[]),
            ("package p\nimport \"time\"\nvar now = time.Now\nvar once = sync.OnceValue(func() time.Time { return time.Now() })\n", &[]),
            ("package p\nimport \"time\"\nfunc (s *S) init() { time.Now() }\n", &[]),
            ("package p\n// var t = time.Now()\nvar s = \"time.Now()\" + `uuid.New()`\n", &[]),
            ("package p\nimport \"time\"\nfunc init() {\n\ttime := fake{}\n\t_ = time.Now()\n}\n", &[]),
            ("package p\nimport \"example.com/time\"\nvar t = time.Now()\n", &[]),
            ("package p\nimport \"math/rand\"\nvar r = rand.New(rand.NewSource(1))\n", &[]),
            ("package p\nimport \"time\"\nconst day = 24 * time.Hour\nvar d = time.Duration(5)\n", &[]),
            ("package p\nfunc init() { functions.HTTP(\"F\", func(w W, r *R) { time.Now() }) }\n", &[]),
        ],
    );
}

#[test]
fn java_is_looked_at() {
    check(
        Language::Java,
        &[
            ("import java.util.UUID;\nclass A { static final String ID = UUID.randomUUID().toString(); }\n", &["2 Random UUID.randomUUID()"]),
            ("import java.util.*;\nclass A { static { id = UUID.randomUUID(); } }\n", &["2 Random UUID.randomUUID()"]),
            ("import static java.util.UUID.randomUUID;\nclass A { static Object id = randomUUID(); }\n", &["2 Random randomUUID()"]),
            ("import static java.lang.System.*;\nclass A { static long t = nanoTime(); }\n", &["2 Clock nanoTime()"]),
            ("class A { static Object id = java.util.UUID.randomUUID(); }\n", &["1 Random java.util.UUID.randomUUID()"]),
            (
                "class A { static final double N = Math.random(); static long t = System.currentTimeMillis(); }\n",
                &["1 Random Math.random()", "1 Clock System.currentTimeMillis()"],
            ),
            ("import java.util.Random;\nclass A { static final Random R = new Random(); static int n = R.nextInt(6); }\n", &["2 Random R.nextInt()"]),
            (
                "import java.util.concurrent.ThreadLocalRandom;\nclass A { static int n = ThreadLocalRandom.current().nextInt(); }\n",
                &["2 Random ThreadLocalRandom.current().nextInt()"],
            ),
            (
                "import java.time.*;\nenum E { X(Instant.now()); E(Instant t) {} }\ninterface I { LocalDateTime T = LocalDateTime.now(); }\n",
                &["2 Clock Instant.now()", "3 Clock LocalDateTime.now()"],
            ),
            ("import java.util.Date;\nclass A { static Date d = new Date(); }\n", &["2 Clock new Date()"]),
            (
                "import com.google.cloud.storage.*;\nclass A { static Storage s = StorageOptions.getDefaultInstance().getService();\n static Storage t = StorageOptions.newBuilder().setProjectId(\"p\").build().getService(); }\n",
                &["2 Client StorageOptions.getDefaultInstance().getService()", "3 Client StorageOptions.newBuilder().setProjectId(\"p\").build().getSe…()"],
            ),
            (
                "import com.google.cloud.secretmanager.v1.SecretManagerServiceClient;\nclass A { static Object c = SecretManagerServiceClient.create(); }\n",
                &["2 Client SecretManagerServiceClient.create()"],
            ),
            (
                "import com.google.cloud.functions.*;\nimport java.time.Instant;\npublic class F implements HttpFunction {\n private final Instant a = Instant.now();\n public F() { Instant b = Instant.now(); }\n public void service(HttpRequest r, HttpResponse s) { Instant.now(); }\n}\n",
                &["4 Clock Instant.now()", "5 Clock Instant.now()"],
            ),
            (
                "import redis.clients.jedis.JedisPool;\nclass A { static class B { static final JedisPool P = new JedisPool(\"h\", 1); } }\n",
                &["2 Client new JedisPool()"],
            ),
            // Nothing of these.
            ("import java.util.UUID;\nclass A { String f() { return UUID.randomUUID().toString(); } }\n", &[]),
            ("import java.util.UUID;\nclass A { String id = UUID.randomUUID().toString(); A() { System.nanoTime(); } }\n", &[]),
            (
                "import java.util.*;\nimport java.util.function.*;\nclass A { static Supplier<UUID> s = () -> UUID.randomUUID(); static Supplier<UUID> t = UUID::randomUUID; }\n",
                &[],
            ),
            ("class A { /* UUID.randomUUID() */ static String s = \"UUID.randomUUID()\"; // Math.random()\n}\n", &[]),
            ("import java.util.*;\nclass UUID { static UUID randomUUID() { return null; } }\nclass A { static UUID id = UUID.randomUUID(); }\n", &[]),
            ("import com.example.UUID;\nclass A { static UUID id = UUID.randomUUID(); }\n", &[]),
            ("import java.util.*;\nclass A { static Random r = new Random(42); static int n = r.nextInt(); static Date d = new Date(0L); }\n", &[]),
            ("import java.time.Duration;\nclass A { static Duration d = Duration.ofSeconds(1); }\n", &[]),
            ("import java.util.*;\nclass A { static Object o = new Object() { long t() { return System.nanoTime(); } }; }\n", &[]),
        ],
    );
    let own = Beside { top: BTreeSet::new(), beside: ["UUID".to_owned()].into() };
    assert_eq!(told(Language::Java, "import java.util.*;\nclass A { static Object id = UUID.randomUUID(); }\n", &own), [""; 0]);
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn what_others_wrote_is_passed_and_the_top_comes_first() {
    let text = "import time\nT = time.time()\n";
    let passed = ["vendor/a.py", "a/node_modules/b.py", ".venv/lib/c.py", "lib/site-packages/d.py", "tests/e.py", "test_f.py", "g_test.py", "h.txt"];
    let files: Vec<_> = passed.iter().chain(&["a/z.py", "main.py"]).map(|path| (*path, text)).collect();
    let looked = look(folder(&files).path(), Language::Python).unwrap();
    let found: Vec<_> = looked.findings.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
    assert_eq!((found, looked.more, looked.is_partial), (vec![("main.py", 2), ("a/z.py", 2)], 0, false));
}

#[test]
fn what_is_told_is_bounded() {
    let many = format!("import time\n{}", "T = time.time()\n".repeat(50));
    let large = format!("import time\nT = time.time()\n#{}\n", "x".repeat(1 << 20));
    let looked = look(folder(&[("main.py", &many), ("large.py", &large)]).path(), Language::Python).unwrap();
    assert_eq!((looked.findings.len(), looked.more, looked.is_partial), (FOUND_MAX, 30, true));
}

#[test]
fn a_source_that_is_made_to_be_hard_ends_in_time() {
    let deep = "(".repeat(200_000);
    let calls = format!("from uuid import *\nx = a{}\n", "()".repeat(100_000));
    let minus = format!("x = {}1\n", "-".repeat(400_000));
    for text in [deep, calls, minus, "\u{0}\u{ffff}'''".repeat(9999)] {
        for (language, name) in [(Language::Python, "main.py"), (Language::Nodejs, "index.js"), (Language::Go, "f.go"), (Language::Java, "F.java")] {
            let began = Instant::now();
            look(folder(&[(name, &text)]).path(), language).unwrap();
            assert!(began.elapsed() < Duration::from_secs(4), "{name}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn a_finding_is_a_sentence() {
    let finding = Finding { file: "main.py".to_owned(), line: 3, what: "storage.Client()".to_owned(), kind: Kind::Client };
    assert_eq!(
        finding.sentence(),
        "main.py:3: storage.Client() is made while the code loads, so each clone begins with a copy of it, and with a connection that it opens there are \
         no such clones: make it at first use and keep it from there on, or deploy with --start runtime."
    );
}
