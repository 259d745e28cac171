package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;
import static dev.wardrobe.adapter.AdapterException.plain;
import static dev.wardrobe.adapter.AdapterException.quote;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.StringWriter;
import java.time.DateTimeException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * What a store's {@code index.json} says: an OCI image index whose descriptors are the tags that
 * other tools see, and whose annotations are the catalog.
 *
 * <p>The catalog is read from the annotations alone, since other tools rewrite descriptors: the
 * tags are made from it each time. What others put there stays as it is, but for a tag of theirs
 * that the catalog has, too, which becomes a descriptor without a name, as those tools do
 * themselves.
 *
 * @param tags other tools' descriptors
 * @param annotations other tools' annotations of the index
 * @param members other tools' members of the document
 */
record StoreIndex(
    Catalog catalog,
    List<ObjectNode> tags,
    Map<String, String> annotations,
    Map<String, JsonNode> members) {

  /** Most bytes of the file: some hundred thousand versions. */
  static final int LARGEST_FILE = 96 << 20;

  static final String REF_NAME = "org.opencontainers.image.ref.name";
  static final StoreIndex EMPTY = new StoreIndex(Catalog.EMPTY, List.of(), Map.of(), Map.of());

  private static final String MEDIA_TYPE = "application/vnd.oci.image.index.v1+json";
  private static final String OURS = "dev.wardrobe.";
  private static final String REVISION = OURS + "revision";
  private static final String NAME = OURS + "name.";
  private static final String TAG = OURS + "tag";
  private static final int MOST_TOKENS = 8_000_000;

  static final ObjectMapper JSON =
      new ObjectMapper(
          JsonFactory.builder()
              .streamReadConstraints(
                  StreamReadConstraints.builder()
                      .maxNestingDepth(32)
                      .maxStringLength(LARGEST_FILE)
                      .maxNameLength(4096)
                      .maxNumberLength(64)
                      .maxTokenCount(MOST_TOKENS)
                      .build())
              .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
              .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
              .build());

  StoreIndex {
    tags = List.copyOf(tags);
    annotations = Map.copyOf(annotations);
    members = Map.copyOf(members);
  }

  StoreIndex with(Catalog next) {
    return new StoreIndex(next, others(tags, next), annotations, members);
  }

  /**
   * Reads the file's bytes.
   *
   * @throws AdapterException DAMAGED if they are no index, or its catalog contradicts itself
   */
  static StoreIndex parse(byte[] bytes) throws AdapterException {
    try (JsonParser parser = JSON.createParser(bytes)) {
      expect(parser.nextToken() == JsonToken.START_OBJECT, "a JSON object");
      List<ObjectNode> manifests = new ArrayList<>();
      Map<String, String> annotations = new LinkedHashMap<>();
      Map<String, JsonNode> members = new LinkedHashMap<>();
      boolean version = false;
      boolean list = false;
      for (String field = parser.nextFieldName(); field != null; field = parser.nextFieldName()) {
        parser.nextToken();
        switch (field) {
          case "schemaVersion" -> {
            expect(
                parser.currentToken() == JsonToken.VALUE_NUMBER_INT && parser.getIntValue() == 2,
                "schemaVersion 2");
            version = true;
          }
          case "mediaType" ->
              expect(MEDIA_TYPE.equals(parser.getValueAsString()), "the mediaType " + MEDIA_TYPE);
          case "manifests" -> {
            readManifests(parser, manifests);
            list = true;
          }
          case "annotations" -> readAnnotations(parser, annotations);
          default -> members.put(field, JSON.readTree(parser));
        }
      }
      expect(parser.currentToken() == JsonToken.END_OBJECT, "a JSON object");
      expect(parser.nextToken() == null, "one document and nothing after it");
      expect(version, "schemaVersion 2");
      expect(list, "a list of manifests");
      Catalog catalog = catalog(annotations);
      annotations.keySet().removeIf(key -> key.startsWith(OURS));
      return new StoreIndex(catalog, others(manifests, catalog), annotations, members);
    } catch (JsonProcessingException e) {
      JsonLocation place = e.getLocation();
      throw new AdapterException(
          Reason.DAMAGED,
          plain(String.valueOf(e.getOriginalMessage()))
              + (place == null ? "" : " at byte " + place.getByteOffset()),
          e);
    } catch (IOException | IllegalArgumentException e) {
      throw new AdapterException(Reason.DAMAGED, plain(message(e)), e);
    }
  }

  private static void expect(boolean holds, String what) throws IOException {
    if (!holds) {
      throw new IOException("expected " + what);
    }
  }

  private static void readManifests(JsonParser parser, List<ObjectNode> into) throws IOException {
    expect(parser.currentToken() == JsonToken.START_ARRAY, "a list of manifests");
    while (parser.nextToken() != JsonToken.END_ARRAY) {
      expect(parser.currentToken() == JsonToken.START_OBJECT, "a list of descriptors");
      ObjectNode descriptor = JSON.readTree(parser);
      expect(descriptor.path("digest").isTextual(), "a digest in each descriptor");
      into.add(descriptor);
    }
  }

  private static void readAnnotations(JsonParser parser, Map<String, String> into)
      throws IOException {
    if (parser.currentToken() == JsonToken.VALUE_NULL) {
      return;
    }
    expect(parser.currentToken() == JsonToken.START_OBJECT, "annotations as an object");
    for (String key = parser.nextFieldName(); key != null; key = parser.nextFieldName()) {
      expect(parser.nextToken() == JsonToken.VALUE_STRING, "annotations of text");
      into.put(key, parser.getText());
    }
  }

  /** The descriptors that are not tags of {@code catalog}. */
  private static List<ObjectNode> others(List<ObjectNode> manifests, Catalog catalog) {
    List<ObjectNode> others = new ArrayList<>();
    for (ObjectNode descriptor : manifests) {
      JsonNode annotations = descriptor.path("annotations");
      if (annotations.has(TAG)) {
        continue;
      }
      String tag = annotations.path(REF_NAME).asText("");
      Catalog.Found ours = tag.indexOf('@') < 0 ? null : catalog.find(tag);
      if (ours == null) {
        others.add(descriptor);
      } else if (!descriptor.path("digest").asText().equals(ours.target().main())) {
        ObjectNode nameless = descriptor.deepCopy();
        ((ObjectNode) nameless.path("annotations")).remove(REF_NAME);
        others.add(nameless);
      }
    }
    return others;
  }

  private static Catalog catalog(Map<String, String> annotations) throws IOException {
    String revision = annotations.getOrDefault(REVISION, "0");
    SortedMap<String, Catalog.Entry> entries = new TreeMap<>();
    for (Map.Entry<String, String> annotation : annotations.entrySet()) {
      if (annotation.getKey().startsWith(NAME)) {
        String name = annotation.getKey().substring(NAME.length());
        try {
          entries.put(name, entry(name, JSON.readTree(annotation.getValue())));
        } catch (AdapterException | IOException | RuntimeException e) {
          throw new IOException("the entry of %s: %s".formatted(quote(name), message(e)), e);
        }
      }
    }
    try {
      return Catalog.of(Long.parseUnsignedLong(revision), entries);
    } catch (NumberFormatException e) {
      throw new IOException("expected a revision, got " + quote(revision), e);
    }
  }

  private static Catalog.Entry entry(String name, JsonNode json)
      throws AdapterException, IOException {
    Catalog.checkName(name);
    List<Catalog.Version> versions = new ArrayList<>();
    Set<String> labels = new HashSet<>();
    Set<String> digests = new HashSet<>();
    for (JsonNode version : json.path("versions")) {
      String label = version.path("version").asText();
      Catalog.checkVersion(label);
      Content content =
          new Content(
              version.path("digest").asText(),
              version.path("config").asLong(-1),
              version.path("weights").asLong(-1));
      expect(labels.add(label), "each version once");
      digests.add(content.digest());
      versions.add(new Catalog.Version(label, content, time(version)));
    }
    expect(!versions.isEmpty(), "versions");
    SortedMap<String, Catalog.Alias> aliases = new TreeMap<>();
    for (Map.Entry<String, JsonNode> alias : json.path("aliases").properties()) {
      String label = alias.getKey();
      Catalog.checkAlias(label);
      expect(labels.add(label), "other labels for aliases than for versions");
      List<Catalog.Setting> earlier = new ArrayList<>();
      for (JsonNode past : alias.getValue().path("earlier")) {
        earlier.add(setting(past, digests));
      }
      aliases.put(label, new Catalog.Alias(label, setting(alias.getValue(), digests), earlier));
    }
    expect(aliases.containsKey(Catalog.LATEST), "the alias " + Catalog.LATEST);
    return new Catalog.Entry(name, json.path("last").asLong(0), versions, aliases);
  }

  private static Catalog.Setting setting(JsonNode json, Set<String> digests) throws IOException {
    List<Catalog.Share> shares = new ArrayList<>();
    for (JsonNode share : json.path("target")) {
      shares.add(
          new Catalog.Share(
              known(share.path("digest").asText(), digests), share.path("weight").asInt(1)));
    }
    JsonNode shadow = json.path("shadow");
    return new Catalog.Setting(
        new Catalog.Target(shares),
        shadow.isMissingNode()
            ? null
            : new Catalog.Shadow(
                known(shadow.path("digest").asText(), digests), shadow.path("fraction").asDouble()),
        time(json));
  }

  private static String known(String digest, Set<String> digests) throws IOException {
    expect(digests.contains(digest), "aliases that point to versions");
    return digest;
  }

  private static Instant time(JsonNode json) throws IOException {
    try {
      return Instant.parse(json.path("time").asText());
    } catch (DateTimeException e) {
      throw new IOException("expected a time, got " + quote(json.path("time").asText()), e);
    }
  }

  /**
   * The file's bytes.
   *
   * @throws AdapterException TOO_LARGE if they would not be read again
   */
  byte[] bytes() throws AdapterException {
    ByteArrayOutputStream out = new ByteArrayOutputStream(1 << 16);
    try (JsonGenerator json = JSON.createGenerator(out)) {
      json.writeStartObject();
      json.writeNumberField("schemaVersion", 2);
      json.writeStringField("mediaType", MEDIA_TYPE);
      json.writeArrayFieldStart("manifests");
      for (Catalog.Entry entry : catalog.entries().values()) {
        writeTags(entry, json);
      }
      for (ObjectNode tag : tags) {
        JSON.writeTree(json, tag);
      }
      json.writeEndArray();
      json.writeObjectFieldStart("annotations");
      json.writeStringField(REVISION, Long.toUnsignedString(catalog.revision()));
      for (Catalog.Entry entry : catalog.entries().values()) {
        json.writeStringField(NAME + entry.name(), text(entry));
      }
      for (Map.Entry<String, String> annotation : new TreeMap<>(annotations).entrySet()) {
        json.writeStringField(annotation.getKey(), annotation.getValue());
      }
      json.writeEndObject();
      for (Map.Entry<String, JsonNode> member : new TreeMap<>(members).entrySet()) {
        json.writeFieldName(member.getKey());
        JSON.writeTree(json, member.getValue());
      }
      json.writeEndObject();
    } catch (IOException e) {
      throw new AdapterException(Reason.IO, "index.json: " + message(e), e);
    }
    if (out.size() > LARGEST_FILE) {
      throw new AdapterException(
          Reason.TOO_LARGE,
          "index.json: expected at most %d bytes, got %d; delete versions, or use another store"
              .formatted(LARGEST_FILE, out.size()));
    }
    return out.toByteArray();
  }

  private static void writeTags(Catalog.Entry entry, JsonGenerator json) throws IOException {
    Map<String, Content> contents = new LinkedHashMap<>();
    for (Catalog.Version version : entry.versions()) {
      contents.put(version.digest(), version.content());
      writeTag(entry.name(), version.label(), "version", version.content(), json);
    }
    for (Catalog.Alias alias : entry.aliases().values()) {
      Content main = contents.get(alias.target().main());
      if (main == null) {
        throw new IllegalStateException("an alias of no version: " + alias);
      }
      writeTag(entry.name(), alias.label(), "alias", main, json);
    }
  }

  private static void writeTag(
      String name, String label, String kind, Content content, JsonGenerator json)
      throws IOException {
    json.writeStartObject();
    json.writeStringField("mediaType", Manifest.MEDIA_TYPE);
    json.writeStringField("digest", content.digest());
    json.writeNumberField("size", Manifest.bytes(content));
    json.writeStringField("artifactType", Manifest.ARTIFACT_TYPE);
    json.writeObjectFieldStart("annotations");
    json.writeStringField(REF_NAME, name + "@" + label);
    json.writeStringField(TAG, kind);
    json.writeEndObject();
    json.writeEndObject();
  }

  private static String text(Catalog.Entry entry) throws IOException {
    StringWriter text = new StringWriter();
    try (JsonGenerator json = JSON.createGenerator(text)) {
      json.writeStartObject();
      json.writeNumberField("last", entry.lastNumber());
      json.writeArrayFieldStart("versions");
      for (Catalog.Version version : entry.versions()) {
        json.writeStartObject();
        json.writeStringField("version", version.label());
        json.writeStringField("digest", version.digest());
        json.writeNumberField("config", version.content().configBytes());
        json.writeNumberField("weights", version.content().weightBytes());
        json.writeStringField("time", version.time().toString());
        json.writeEndObject();
      }
      json.writeEndArray();
      json.writeObjectFieldStart("aliases");
      for (Catalog.Alias alias : entry.aliases().values()) {
        json.writeObjectFieldStart(alias.label());
        writeSetting(alias.current(), json);
        if (!alias.earlier().isEmpty()) {
          json.writeArrayFieldStart("earlier");
          for (Catalog.Setting past : alias.earlier()) {
            json.writeStartObject();
            writeSetting(past, json);
            json.writeEndObject();
          }
          json.writeEndArray();
        }
        json.writeEndObject();
      }
      json.writeEndObject();
      json.writeEndObject();
    }
    return text.toString();
  }

  private static void writeSetting(Catalog.Setting setting, JsonGenerator json) throws IOException {
    json.writeArrayFieldStart("target");
    for (Catalog.Share share : setting.target().shares()) {
      json.writeStartObject();
      json.writeStringField("digest", share.digest());
      json.writeNumberField("weight", share.weight());
      json.writeEndObject();
    }
    json.writeEndArray();
    Catalog.@Nullable Shadow shadow = setting.shadow();
    if (shadow != null) {
      json.writeObjectFieldStart("shadow");
      json.writeStringField("digest", shadow.digest());
      json.writeNumberField("fraction", shadow.fraction());
      json.writeEndObject();
    }
    json.writeStringField("time", setting.time().toString());
  }
}
