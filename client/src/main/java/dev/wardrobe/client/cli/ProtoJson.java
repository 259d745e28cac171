package dev.wardrobe.client.cli;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;

/**
 * Messages as scripts read them: fields as in the .proto, those of value 0 or empty written too.
 */
final class ProtoJson {
  private static final JsonFormat.Printer DOCUMENT =
      JsonFormat.printer().preservingProtoFieldNames().alwaysPrintFieldsWithNoPresence();
  private static final JsonFormat.Printer LINE = DOCUMENT.omittingInsignificantWhitespace();

  private ProtoJson() {}

  /** Over several lines. */
  static String document(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return DOCUMENT.print(message);
  }

  /** On one line. */
  static String line(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return LINE.print(message);
  }
}
