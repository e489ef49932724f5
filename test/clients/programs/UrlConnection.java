import java.net.HttpURLConnection;
import java.net.URL;
import java.security.MessageDigest;
import java.util.HexFormat;

public class UrlConnection {
  public static void main(String[] arguments) throws Exception {
    String[][] steps = {
      {"get", "GET", "/get"},
      {"post", "POST", "/echo"},
      {"big", "GET", "/big"},
      {"keep-1", "GET", "/keep/1"},
      {"keep-2", "GET", "/keep/2"},
      {"healed", "GET", "/healed"},
    };
    for (var step : steps) {
      var connection = (HttpURLConnection) new URL(arguments[0] + step[2]).openConnection();
      connection.setRequestMethod(step[1]);
      if (step[1].equals("POST")) {
        connection.setDoOutput(true);
        try (var output = connection.getOutputStream()) {
          output.write("x".repeat(100_000).getBytes());
        }
      }
      try (var input = connection.getInputStream()) {
        var hash = MessageDigest.getInstance("SHA-256").digest(input.readAllBytes());
        System.out.printf("{\"step\":\"%s\",\"status\":%d,\"sha256\":\"%s\"}%n",
            step[0], connection.getResponseCode(), HexFormat.of().formatHex(hash));
      }
    }
  }
}
