package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.awaitility.Awaitility.await;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.serve.Conversation;
import dev.wardrobe.v1.GetRunRequest;
import dev.wardrobe.v1.GetRunResponse;
import dev.wardrobe.v1.Run;
import dev.wardrobe.v1.TrainingServiceGrpc;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import java.util.zip.GZIPOutputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveOutputStream;
import org.apache.commons.compress.archivers.tar.TarConstants;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** The page, what is sent by it, and the events it reads: real HTTP, the embedded model. */
@Timeout(180)
final class PageServerTest {
  private static final Path HOME = Path.of(System.getProperty("wardrobe.root"), "deploy");
  private static final Path DEMO = HOME.resolve("models/demo/adapters");
  private static final String CONFIG = "adapter_config.json";
  private static final String WEIGHTS = "adapter_model.safetensors";
  private static final String BOUNDARY = "of-the-test";
  private static final ObjectMapper MAPPER = new ObjectMapper();

  @TempDir private static Path folder;
  private static Stack stack;
  private static HttpFrontend frontend;
  private static int port;
  private static HttpClient client;

  @BeforeAll
  static void start() throws Exception {
    ModelArguments arguments = new ModelArguments(Conversation.DEFAULT_MAX_LOGPROBS);
    new CommandLine(arguments).parseArgs("--model", HOME.resolve("models/demo/base").toString());
    stack =
        new Stack(
            arguments,
            List.of(),
            folder.resolve("store"),
            AdapterOptions.DEFAULT,
            UnaryOperator.identity());
    frontend = stack.frontend(List.of(new Runs()));
    port = frontend.listen("127.0.0.1", 0);
    client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  }

  @AfterAll
  static void stop() throws IOException {
    client.close();
    frontend.close();
    stack.close();
  }

  @AfterEach
  void nothingIsLeft() {
    await()
        .untilAsserted(
            () -> {
              try (Stream<Path> files = Files.list(folder.resolve("store/.staging"))) {
                // What has a digest's name is the store's own note.
                assertThat(files.filter(file -> !(file.getFileName() + "").matches("[0-9a-f]{64}")))
                    .isEmpty();
              }
            });
  }

  private static HttpRequest.Builder to(String path) {
    return HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path));
  }

  private static HttpResponse<String> send(HttpRequest request) throws Exception {
    return client.send(request, HttpResponse.BodyHandlers.ofString());
  }

  private static HttpResponse<String> get(String path) throws Exception {
    return send(to(path).build());
  }

  private static byte[] file(String adapter, String file) {
    try {
      return Files.readAllBytes(DEMO.resolve(adapter).resolve(file));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The two files of an adapter, in a folder of an archive. */
  private static Map<String, byte[]> packed(String adapter, String folder) {
    Map<String, byte[]> files = new LinkedHashMap<>();
    // In the order that is worse for who reads.
    files.put(folder + WEIGHTS, file(adapter, WEIGHTS));
    files.put(folder + CONFIG, file(adapter, CONFIG));
    return files;
  }

  private static byte[] zip(Map<String, byte[]> files) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ZipOutputStream zip = new ZipOutputStream(bytes)) {
      for (Map.Entry<String, byte[]> file : files.entrySet()) {
        zip.putNextEntry(new ZipEntry(file.getKey()));
        zip.write(file.getValue());
        zip.closeEntry();
      }
    }
    return bytes.toByteArray();
  }

  private static byte[] tar(Map<String, byte[]> files) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (TarArchiveOutputStream tar = new TarArchiveOutputStream(bytes)) {
      tar.setLongFileMode(TarArchiveOutputStream.LONGFILE_GNU);
      for (Map.Entry<String, byte[]> file : files.entrySet()) {
        TarArchiveEntry entry = new TarArchiveEntry(file.getKey(), true);
        entry.setSize(file.getValue().length);
        tar.putArchiveEntry(entry);
        tar.write(file.getValue());
        tar.closeArchiveEntry();
      }
    }
    return bytes.toByteArray();
  }

  private static byte[] gzip(byte[] bytes) throws IOException {
    ByteArrayOutputStream packed = new ByteArrayOutputStream();
    try (OutputStream out = new GZIPOutputStream(packed)) {
      out.write(bytes);
    }
    return packed.toByteArray();
  }

  private static HttpRequest form(String query, Map<String, byte[]> files) {
    List<byte[]> parts = new ArrayList<>();
    files.forEach(
        (name, bytes) -> {
          parts.add(
              ("--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\n"
                          .formatted(BOUNDARY, name)
                      + "Content-Type: application/octet-stream\r\n\r\n")
                  .getBytes(StandardCharsets.UTF_8));
          parts.add(bytes);
          parts.add("\r\n".getBytes(StandardCharsets.UTF_8));
        });
    parts.add("--%s--\r\n".formatted(BOUNDARY).getBytes(StandardCharsets.UTF_8));
    return to("/v1/adapters:upload" + query)
        .header("content-type", "multipart/form-data; boundary=" + BOUNDARY)
        .POST(HttpRequest.BodyPublishers.ofByteArrays(parts))
        .build();
  }

  private static JsonNode upload(String query, Map<String, byte[]> files) throws Exception {
    HttpResponse<String> response = send(form(query, files));
    assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
    return MAPPER.readTree(response.body());
  }

  private static void refused(int status, Map<String, byte[]> files, String... words)
      throws Exception {
    refused(status, "?name=refused", files, words);
  }

  private static void refused(int status, String query, Map<String, byte[]> files, String... words)
      throws Exception {
    long before = stack.adapters().events().revision();
    HttpResponse<String> response = send(form(query, files));
    assertThat(response.statusCode()).as(response.body()).isEqualTo(status);
    assertThat(MAPPER.readTree(response.body()).at("/error/message").asText()).contains(words);
    assertThat(get("/v1/adapters/refused").statusCode()).isEqualTo(404);
    assertThat(stack.adapters().events().revision()).isEqualTo(before);
  }

  @Test
  void page_isWhole_andAsksForNothingElsewhere() throws Exception {
    HttpResponse<String> index = get("/");
    assertThat(index.headers().firstValue("content-type")).contains("text/html; charset=utf-8");
    Set<String> seen = new LinkedHashSet<>(List.of("/"));
    List<String> left = new ArrayList<>(seen);
    Pattern reference = Pattern.compile("(?:src=|href=|from )[\"']([^\"'#]+)[\"']");
    while (!left.isEmpty()) {
      String path = left.removeFirst();
      HttpResponse<String> response = get(path);
      assertThat(response.statusCode()).as(path).isEqualTo(200);
      assertThat(response.headers().firstValue("x-content-type-options")).contains("nosniff");
      assertThat(response.headers().firstValue("content-security-policy").orElseThrow())
          .contains("default-src 'none'", "script-src 'self';")
          .doesNotContain("unsafe");
      assertThat(response.body())
          .doesNotContain("innerHTML", "insertAdjacent", "<style", " style=");
      Matcher references = reference.matcher(response.body());
      while (references.find()) {
        assertThat(references.group(1)).startsWith("/page/");
        if (seen.add(references.group(1))) {
          left.add(references.group(1));
        }
      }
    }
    assertThat(seen).contains("/page/page.css", "/page/page.js", "/page/plot.js", "/page/icon.svg");
    assertThat(get("/page/page.js").headers().firstValue("content-type"))
        .contains("text/javascript; charset=utf-8");
    assertThat(get("/page/../page.js").statusCode()).isEqualTo(404);
    assertThat(get("/page/PageRoutes.class").statusCode()).isEqualTo(404);
  }

  @Test
  void page_isNotSentAgain() throws Exception {
    String tag = get("/").headers().firstValue("etag").orElseThrow();
    HttpResponse<String> again = send(to("/").header("if-none-match", tag).build());
    assertThat(again.statusCode()).isEqualTo(304);
    assertThat(again.body()).isEmpty();
    HttpResponse<String> other = send(to("/").header("if-none-match", "\"another\"").build());
    assertThat(other.statusCode()).isEqualTo(200);
    HttpResponse<String> head =
        send(to("/").method("HEAD", HttpRequest.BodyPublishers.noBody()).build());
    assertThat(head.statusCode()).isEqualTo(200);
    assertThat(head.headers().firstValueAsLong("content-length").orElse(0)).isGreaterThan(1000);
  }

  @Test
  void upload_ofFilesAndArchives_isTheSameAdapter() throws Exception {
    JsonNode files = upload("?name=sent&alias=prod&alias=canary", packed("terse", ""));
    assertThat(files.at("/adapter/name").asText()).isEqualTo("sent@1");
    assertThat(files.at("/adapter/aliases").toString()).contains("prod", "canary", "latest");
    String digest = files.at("/adapter/digest").asText();
    Map<String, byte[]> deep = new LinkedHashMap<>(packed("terse", "./run/adapter/"));
    deep.putAll(packed("sql", "run/adapter/checkpoint-10/"));
    deep.put("run/README.md", new byte[10]);
    Map<String, byte[]> archives = new LinkedHashMap<>();
    archives.put("a.zip", zip(deep));
    archives.put("b.tar", tar(deep));
    archives.put("c.tar.gz", gzip(tar(deep)));
    // What it is, its bytes say.
    archives.put("d.bin", zip(packed("terse", "")));
    for (Map.Entry<String, byte[]> archive : archives.entrySet()) {
      JsonNode same =
          upload(
              "?name=sent&version=1&keep_latest=true",
              Map.of(archive.getKey(), archive.getValue()));
      assertThat(same.path("existed").asBoolean()).as(archive.getKey()).isTrue();
      assertThat(same.at("/adapter/digest").asText()).isEqualTo(digest);
    }
    JsonNode next = upload("?name=sent", Map.of("x.zip", zip(packed("pirate", "p/"))));
    assertThat(next.path("version").asText()).isEqualTo("2");
    refused(409, "?name=sent&version=1", packed("pirate", ""), "a version never changes");
  }

  @Test
  void upload_ofHostileArchives_isRefusedWhole() throws Exception {
    Map<String, byte[]> outside = packed("terse", "a/");
    outside.put("a/../../evil", new byte[1]);
    refused(400, Map.of("a.zip", zip(outside)), "a/../../evil");
    refused(400, Map.of("a.tar", tar(outside)), "a/../../evil");
    Map<String, byte[]> absolute = packed("terse", "/etc/");
    refused(400, Map.of("a.tgz", gzip(tar(absolute))), "/etc/");
    refused(400, Map.of("a.zip", zip(absolute)), "/etc/");
    Map<String, byte[]> two = packed("terse", "one/");
    two.putAll(packed("sql", "two/"));
    refused(400, Map.of("a.zip", zip(two)), "'one/'", "'two/'", "one by one");
    Map<String, byte[]> many = packed("terse", "");
    for (int i = 0; i < 10_001; i++) {
      many.put("f" + i, new byte[0]);
    }
    refused(413, Map.of("a.zip", zip(many)), "at most 10000 files");
    refused(413, Map.of("a.tar", tar(many)), "at most 10000 files");
    refused(
        400, Map.of("a.zip", zip(Map.of("x/" + CONFIG, file("sql", CONFIG)))), "only " + CONFIG);
    refused(400, Map.of("a.txt", "hello".getBytes(StandardCharsets.UTF_8)), "neither among 1");
    refused(400, Map.of(), "neither among 0");
    refused(
        400,
        Map.of("a.zip", zip(Map.of(CONFIG, file("sql", CONFIG), "adapter_model.bin", new byte[9]))),
        "pickle",
        "safe_serialization");
    byte[] whole = zip(packed("terse", ""));
    refused(400, Map.of("a.zip", Arrays.copyOf(whole, whole.length / 2)), "cannot be read");
    byte[] tgz = gzip(tar(packed("terse", "")));
    refused(400, Map.of("a.tgz", Arrays.copyOf(tgz, tgz.length / 2)), "cannot be read");
  }

  @Test
  void upload_ofLinks_takesNone() throws Exception {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (TarArchiveOutputStream tar = new TarArchiveOutputStream(bytes)) {
      for (byte kind : new byte[] {TarConstants.LF_SYMLINK, TarConstants.LF_LINK}) {
        TarArchiveEntry link =
            new TarArchiveEntry(kind == TarConstants.LF_LINK ? WEIGHTS : CONFIG, kind);
        link.setLinkName("/etc/passwd");
        tar.putArchiveEntry(link);
        tar.closeArchiveEntry();
      }
    }
    refused(400, Map.of("a.tar", bytes.toByteArray()), "neither");
  }

  @Test
  void upload_ofBombs_takesLittle() throws Exception {
    // Names, which who reads keeps in memory.
    ByteArrayOutputStream named = new ByteArrayOutputStream();
    try (TarArchiveOutputStream tar = new TarArchiveOutputStream(named)) {
      TarArchiveEntry name = new TarArchiveEntry("././@LongLink", TarConstants.LF_GNUTYPE_LONGNAME);
      name.setSize(3 << 20);
      tar.putArchiveEntry(name);
      tar.write("n".repeat(3 << 20).getBytes(StandardCharsets.US_ASCII));
      tar.closeArchiveEntry();
    }
    refused(400, Map.of("a.tgz", gzip(named.toByteArray())), "too much of them");
    // Half a gigabyte of zeros in half a megabyte.
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ZipOutputStream zip = new ZipOutputStream(bytes)) {
      zip.putNextEntry(new ZipEntry(CONFIG));
      zip.write(file("sql", CONFIG));
      zip.putNextEntry(new ZipEntry(WEIGHTS));
      byte[] zeros = new byte[1 << 20];
      for (int i = 0; i < 512; i++) {
        zip.write(zeros);
      }
    }
    refused(400, Map.of("a.zip", bytes.toByteArray()), "packed too well");
    // Bytes of a file that is longer than its archive says.
    byte[] lying = zip(packed("terse", ""));
    ByteBuffer buffer = ByteBuffer.wrap(lying).order(ByteOrder.LITTLE_ENDIAN);
    int directory = buffer.getInt(lying.length - 6);
    buffer.putInt(directory + 24, 1000);
    refused(400, Map.of("a.zip", lying), "were declared");
    // A directory of more entries than its end says.
    Map<String, byte[]> many = new LinkedHashMap<>();
    for (int i = 0; i < 60_000; i++) {
      many.put("x".repeat(80) + i, new byte[0]);
    }
    refused(400, Map.of("a.zip", zip(many)), "directory of at most");
  }

  @Test
  void upload_thatIsNotAskedForRightly_saysHow() throws Exception {
    Map<String, byte[]> good = packed("terse", "");
    refused(400, "", good, "name");
    refused(400, "?name=a%20b", good, "a b");
    refused(400, "?name=refused&colour=red", good, "colour");
    refused(400, "?name=refused&keep_latest=1", good, "true or false");
    refused(400, "?name=refused&alias=1.0%2F", good, "1.0/");
    HttpResponse<String> plain =
        send(
            to("/v1/adapters:upload?name=refused")
                .POST(HttpRequest.BodyPublishers.ofString("x"))
                .build());
    assertThat(plain.statusCode()).isEqualTo(400);
    assertThat(plain.body()).contains("multipart/form-data", "curl");
    Map<String, byte[]> damaged = packed("terse", "");
    damaged.put(WEIGHTS, new byte[100]);
    long before = stack.adapters().events().revision();
    HttpResponse<String> gate = send(form("?name=refused", damaged));
    assertThat(gate.statusCode()).isEqualTo(400);
    assertThat(gate.body()).contains(WEIGHTS, "save it again");
    assertThat(stack.adapters().events().revision()).isEqualTo(before);
  }

  @Test
  void upload_byAnotherSitesPage_isRefused() throws Exception {
    for (String[] header :
        new String[][] {
          {"origin", "https://evil.example"}, {"origin", "null"}, {"sec-fetch-site", "cross-site"}
        }) {
      HttpResponse<String> response =
          send(
              HttpRequest.newBuilder(
                      form("?name=refused", packed("terse", "")), (name, value) -> true)
                  .header(header[0], header[1])
                  .build());
      assertThat(response.statusCode()).as(header[0]).isEqualTo(403);
    }
    HttpResponse<String> ours =
        send(
            HttpRequest.newBuilder(form("?name=ours", packed("json", "")), (name, value) -> true)
                .header("origin", "http://127.0.0.1:" + port)
                .header("sec-fetch-site", "same-origin")
                .build());
    assertThat(ours.statusCode()).isEqualTo(200);
  }

  /** What an extension brings. */
  private static final class Runs extends TrainingServiceGrpc.TrainingServiceImplBase {
    @Override
    public void getRun(GetRunRequest request, StreamObserver<GetRunResponse> observer) {
      if (request.getName().equals("a/b")) {
        observer.onNext(
            GetRunResponse.newBuilder().setRun(Run.newBuilder().setName("a/b").setStep(3)).build());
        observer.onCompleted();
      } else {
        observer.onError(Status.NOT_FOUND.withDescription("no such run").asRuntimeException());
      }
    }
  }

  @Test
  void extension_isAskedInJson() throws Exception {
    HttpResponse<String> run = get("/v1/runs/a/b");
    assertThat(run.statusCode()).isEqualTo(200);
    assertThat(MAPPER.readTree(run.body()).at("/run/step").asInt()).isEqualTo(3);
    HttpResponse<String> none = get("/v1/runs/c");
    assertThat(none.statusCode()).isEqualTo(404);
    assertThat(none.body()).contains("no such run");
    assertThat(get("/v1/runs").statusCode()).isEqualTo(501);
  }

  /** Server-sent events of a response, as they come. */
  private static final class Events implements AutoCloseable {
    final HttpResponse<InputStream> response;
    final BufferedReader lines;

    Events(HttpRequest request) throws Exception {
      response = client.send(request, HttpResponse.BodyHandlers.ofInputStream());
      lines = new BufferedReader(new InputStreamReader(response.body(), StandardCharsets.UTF_8));
    }

    JsonNode next() throws IOException {
      String id = null;
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        if (line.startsWith("id: ")) {
          id = line.substring(4);
        } else if (line.startsWith("data: ")) {
          JsonNode event = MAPPER.readTree(line.substring(6));
          assertThat(event.path("revision").asText()).isEqualTo(id);
          return event;
        }
      }
      throw new IOException("ended");
    }

    @Override
    public void close() throws IOException {
      lines.close();
    }
  }

  @Test
  void watch_goesOnWhereItWasLeft() throws Exception {
    String left;
    try (Events events = new Events(to("/v1/adapters:watch").build())) {
      assertThat(events.response.headers().firstValue("content-type"))
          .contains("text/event-stream");
      JsonNode first = events.next();
      assertThat(first.path("kind").asText()).isEqualTo("KIND_WATCHING");
      upload("?name=watched", packed("sql", ""));
      JsonNode published = events.next();
      assertThat(published.path("kind").asText()).isEqualTo("KIND_PUBLISHED");
      assertThat(published.path("name").asText()).isEqualTo("watched@1");
      left = published.path("revision").asText();
    }
    upload("?name=watched", packed("json", ""));
    for (HttpRequest request :
        List.of(
            to("/v1/adapters:watch").header("last-event-id", left).build(),
            to("/v1/adapters:watch?after_revision=" + left).build())) {
      try (Events events = new Events(request)) {
        assertThat(events.next().path("revision").asText()).isEqualTo(left);
        JsonNode latest = events.next();
        assertThat(latest.path("kind").asText()).isEqualTo("KIND_ALIAS_SET");
        assertThat(latest.path("alias").asText()).isEqualTo("latest");
        assertThat(events.next().path("name").asText()).isEqualTo("watched@2");
      }
    }
    for (String bad :
        List.of("after_revision=1", "after_revision=x", "after_revision=9999999999999999999")) {
      HttpResponse<String> response = get("/v1/adapters:watch?" + bad);
      assertThat(response.statusCode()).as(response.body()).isEqualTo(400);
    }
  }

  @Test
  void watch_ofReadersThatLeave_keepsNone() throws Exception {
    // Far more than may read at once.
    for (int i = 0; i < 600; i++) {
      try (Events events = new Events(to("/v1/adapters:watch").build())) {
        assertThat(events.next().path("kind").asText()).isEqualTo("KIND_WATCHING");
      }
    }
  }
}
