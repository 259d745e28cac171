package dev.wardrobe.text;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * The shapes of a tokenizer's parts, checked before native code reads them: there, a part that is
 * not what it says would end the process, not throw. Only the types listed here are let through.
 */
final class Components {

  private static final String FLAG = "a boolean";
  private static final String TEXT = "a string";
  private static final String SOME_TEXT = "a string that is not empty";
  private static final String CHARACTER = "a string of one character";
  private static final String COUNT = "an integer from 0 to 65535";
  private static final String ZERO = "0";
  private static final String PATTERN = "an object with a non-empty 'String' or 'Regex'";
  private static final String TOKEN = "a token and its id";
  private static final String PARTS = "a list of parts";
  private static final String PIECES = "a list of template pieces";
  private static final String BEHAVIOR = "one of " + behaviors();
  private static final String SCHEME = "one of first, never, always";

  /** A field that may be absent or null has its kind behind a question mark. */
  private static final Map<String, Map<String, String>> NORMALIZERS =
      Map.ofEntries(
          Map.entry("Sequence", Map.of("normalizers", PARTS)),
          Map.entry(
              "BertNormalizer",
              Map.of(
                  "clean_text", FLAG,
                  "handle_chinese_chars", FLAG,
                  "strip_accents", optional(FLAG),
                  "lowercase", FLAG)),
          Map.entry("Strip", Map.of("strip_left", FLAG, "strip_right", FLAG)),
          Map.entry("Prepend", Map.of("prepend", SOME_TEXT)),
          Map.entry("Replace", Map.of("pattern", PATTERN, "content", TEXT)),
          Map.entry("Precompiled", Map.of("precompiled_charsmap", TEXT)),
          Map.entry("StripAccents", Map.of()),
          Map.entry("NFC", Map.of()),
          Map.entry("NFD", Map.of()),
          Map.entry("NFKC", Map.of()),
          Map.entry("NFKD", Map.of()),
          Map.entry("Lowercase", Map.of()),
          Map.entry("Nmt", Map.of()),
          Map.entry("ByteLevel", Map.of()));

  private static final Map<String, String> BYTE_LEVEL =
      Map.of("add_prefix_space", FLAG, "trim_offsets", FLAG, "use_regex", optional(FLAG));

  private static final Map<String, String> METASPACE =
      Map.of(
          "replacement", CHARACTER,
          "prepend_scheme", optional(SCHEME),
          "split", optional(FLAG),
          "add_prefix_space", optional(FLAG));

  private static final Map<String, Map<String, String>> PRE_TOKENIZERS =
      Map.ofEntries(
          Map.entry("Sequence", Map.of("pretokenizers", PARTS)),
          Map.entry("ByteLevel", BYTE_LEVEL),
          Map.entry("Metaspace", METASPACE),
          Map.entry("Split", Map.of("pattern", PATTERN, "behavior", BEHAVIOR, "invert", FLAG)),
          Map.entry("Punctuation", Map.of("behavior", optional(BEHAVIOR))),
          Map.entry("Digits", Map.of("individual_digits", FLAG)),
          Map.entry("CharDelimiterSplit", Map.of("delimiter", CHARACTER)),
          Map.entry("BertPreTokenizer", Map.of()),
          Map.entry("Whitespace", Map.of()),
          Map.entry("WhitespaceSplit", Map.of()),
          Map.entry("UnicodeScripts", Map.of()));

  private static final Map<String, Map<String, String>> POST_PROCESSORS =
      Map.of(
          "Sequence", Map.of("processors", PARTS),
          "ByteLevel", BYTE_LEVEL,
          "TemplateProcessing", Map.of("single", PIECES, "pair", PIECES),
          "BertProcessing", Map.of("sep", TOKEN, "cls", TOKEN),
          "RobertaProcessing",
              Map.of("sep", TOKEN, "cls", TOKEN, "trim_offsets", FLAG, "add_prefix_space", FLAG));

  private static final Map<String, Map<String, String>> DECODERS =
      Map.of(
          "Sequence", Map.of("decoders", PARTS),
          "ByteLevel", BYTE_LEVEL,
          "Metaspace", METASPACE,
          "Replace", Map.of("pattern", PATTERN, "content", TEXT),
          "Strip", Map.of("content", CHARACTER, "start", COUNT, "stop", ZERO),
          "WordPiece", Map.of("prefix", TEXT, "cleanup", FLAG),
          "BPEDecoder", Map.of("suffix", TEXT),
          "Fuse", Map.of(),
          "ByteFallback", Map.of());

  private static final Map<String, Map<String, Map<String, String>>> PARTS_BY_FIELD =
      Map.of(
          "normalizer", NORMALIZERS,
          "pre_tokenizer", PRE_TOKENIZERS,
          "post_processor", POST_PROCESSORS,
          "decoder", DECODERS);

  /** What the model may have besides {@code vocab} and {@code merges}. */
  private static final Map<String, Map<String, String>> MODELS =
      Map.of(
          "BPE",
              Map.of(
                  "unk_token", optional(TEXT),
                  "end_of_word_suffix", optional(TEXT),
                  "fuse_unk", optional(FLAG),
                  "byte_fallback", optional(FLAG),
                  "ignore_merges", optional(FLAG)),
          "Unigram", Map.of("unk_id", optional(COUNT), "byte_fallback", optional(FLAG)),
          "WordPiece",
              Map.of(
                  "unk_token", TEXT,
                  "continuing_subword_prefix", TEXT,
                  "max_input_chars_per_word", COUNT),
          "WordLevel", Map.of("unk_token", TEXT));

  private Components() {}

  private static String optional(String kind) {
    return "?" + kind;
  }

  private static Set<String> behaviors() {
    return new TreeSet<>(
        List.of("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"));
  }

  /** Checks the part in one of the file's fields; null is no part. */
  static void check(String field, JsonNode part, Path file) throws TextException {
    Map<String, Map<String, String>> types = PARTS_BY_FIELD.get(field);
    if (types != null && !part.isNull()) {
      check(file + ": " + field, part, types);
    }
  }

  /** Checks the model's fields but for its vocabulary and merges. */
  static void checkModel(JsonNode model, Path file) throws TextException {
    check(file + ": model", model, MODELS);
    String prefix = model.path("continuing_subword_prefix").asText("");
    if (model.path("type").asText().equals("BPE")
        && !prefix.isEmpty()
        && !model.path("continuing_subword_prefix").isNull()) {
      throw new TextException(
          file + ": model: a BPE model with a continuing_subword_prefix is not supported");
    }
    JsonNode dropout = model.path("dropout");
    if (dropout.isNumber() && dropout.doubleValue() != 0) {
      throw new TextException(
          file + ": model: dropout " + dropout + " would make tokenization random");
    }
  }

  private static void check(String where, JsonNode part, Map<String, Map<String, String>> types)
      throws TextException {
    JsonNode type = part.path("type");
    Map<String, String> fields = type.isTextual() ? types.get(type.textValue()) : null;
    if (fields == null) {
      throw new TextException(
          where
              + ": type "
              + (type.isMissingNode() ? "is missing" : type + " is not supported")
              + "; supported are "
              + new TreeSet<>(types.keySet()));
    }
    for (Map.Entry<String, String> field : fields.entrySet()) {
      String kind = field.getValue();
      JsonNode value = part.get(field.getKey());
      if (kind.startsWith("?")) {
        if (value == null || value.isNull()) {
          continue;
        }
        kind = kind.substring(1);
      }
      if (!is(kind, value)) {
        throw new TextException(
            where + ", " + type.textValue() + ": '" + field.getKey() + "' must be " + kind);
      }
      if (kind.equals(PATTERN) && value != null && value.has("Regex")) {
        String objection = RegexShape.objection(value.path("Regex").asText());
        if (objection != null) {
          throw new TextException(
              where + ", " + type.textValue() + ": the regular expression " + objection);
        }
      }
      if (kind.equals(PARTS) && value != null) {
        for (JsonNode inner : value) {
          check(where, inner, types);
        }
      }
    }
    if (type.textValue().equals("TemplateProcessing")) {
      checkTemplates(where, part);
    }
  }

  private static boolean is(String kind, @Nullable JsonNode value) {
    if (value == null) {
      return false;
    }
    return switch (kind) {
      case FLAG -> value.isBoolean();
      case TEXT -> value.isTextual();
      case SOME_TEXT -> value.isTextual() && !value.textValue().isEmpty();
      case CHARACTER -> value.isTextual() && value.textValue().codePoints().count() == 1;
      case COUNT -> isInteger(value, 65_535);
      // The library reads before a text's start where more than its length is to be stripped.
      case ZERO -> isInteger(value, 0);
      case PATTERN ->
          value.size() == 1
              && (!value.path("String").asText().isEmpty() || value.path("Regex").isTextual());
      case TOKEN ->
          value.isArray()
              && value.size() == 2
              && value.get(0).isTextual()
              && isInteger(value.get(1), Integer.MAX_VALUE);
      case PARTS, PIECES -> value.isArray();
      default ->
          value.isTextual()
              && (kind.equals(SCHEME)
                  ? List.of("first", "never", "always").contains(value.textValue())
                  : behaviors().contains(value.textValue()));
    };
  }

  private static boolean isInteger(JsonNode value, int max) {
    return value.isInt() && value.intValue() >= 0 && value.intValue() <= max;
  }

  /** Every special token of a template must be one that the part defines. */
  private static void checkTemplates(String where, JsonNode part) throws TextException {
    JsonNode defined = part.path("special_tokens");
    Set<String> names = new HashSet<>();
    for (Map.Entry<String, JsonNode> token : defined.properties()) {
      JsonNode ids = token.getValue().path("ids");
      JsonNode tokens = token.getValue().path("tokens");
      boolean sound =
          token.getKey().equals(token.getValue().path("id").textValue())
              && ids.isArray()
              && tokens.isArray()
              && ids.size() == tokens.size();
      for (JsonNode id : ids) {
        sound &= isInteger(id, Integer.MAX_VALUE);
      }
      for (JsonNode text : tokens) {
        sound &= text.isTextual();
      }
      if (!sound) {
        throw new TextException(
            where + ", TemplateProcessing: special token '" + token.getKey() + "' is malformed");
      }
      names.add(token.getKey());
    }
    checkPieces(where, part.path("single"), names, Set.of("A"));
    checkPieces(where, part.path("pair"), names, Set.of("A", "B"));
  }

  private static void checkPieces(
      String where, JsonNode pieces, Set<String> names, Set<String> sequences)
      throws TextException {
    Set<String> seen = new HashSet<>();
    for (JsonNode piece : pieces) {
      JsonNode special = piece.path("SpecialToken");
      JsonNode sequence = piece.path("Sequence");
      JsonNode inner = special.isObject() ? special : sequence;
      String id = inner.path("id").asText();
      boolean sound =
          piece.size() == 1
              && isInteger(inner.path("type_id"), 65_535)
              && (special.isObject() ? names.contains(id) : sequences.contains(id));
      if (!sound) {
        throw new TextException(
            where
                + ", TemplateProcessing: a piece is neither a sequence of "
                + sequences
                + " nor a special token that 'special_tokens' defines: "
                + piece);
      }
      if (sequence.isObject()) {
        seen.add(id);
      }
    }
    if (!seen.containsAll(sequences)) {
      throw new TextException(
          where + ", TemplateProcessing: a template leaves out a sequence of " + sequences);
    }
  }
}
